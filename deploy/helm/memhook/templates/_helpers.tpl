{{- define "memhook.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "memhook.selector" -}}
app.kubernetes.io/name: memhook
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "memhook.labels" -}}
{{ include "memhook.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- /* What an object is of: api, worker, or all. */ -}}
{{- define "memhook.front" -}}{{ if .Values.split }}api{{ else }}all{{ end }}{{- end }}

{{- define "memhook.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "memhook.security" -}}
{allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
{{- end }}

{{- define "memhook.podSecurity" -}}
{runAsNonRoot: true, runAsUser: 65532, seccompProfile: {type: RuntimeDefault}}
{{- end }}

{{- /* The settings that are not secret. The job before an installation has them too, so they are no object of their own. */ -}}
{{- define "memhook.env" -}}
{{- $own := dict
  "MEMHOOK_AUTO_MIGRATE" (ternary "false" "true" .Values.migrate.enabled)
  "MEMHOOK_DRAIN_TIME" (printf "%ds" (int .Values.drainSeconds))
  "MEMHOOK_SHUTDOWN_TIMEOUT" (printf "%ds" (int .Values.shutdownSeconds))
  "MEMHOOK_METRICS_ADDR" ":9090" -}}
{{- range $name, $value := merge (dict) .Values.settings $own }}
- {name: {{ $name }}, value: {{ $value | toString | quote }}}
{{- end }}
{{- end }}

{{- /* Nine tenths of a limit in Mi or Gi, for Go's garbage collector. */ -}}
{{- define "memhook.memory" -}}
{{- with regexFind "^[0-9]+[MG]i$" (dig "limits" "memory" "" .) }}
- {name: GOMEMLIMIT, value: {{ div (mul (regexFind "^[0-9]+" . | int) (ternary 1024 1 (hasSuffix "Gi" .)) 9) 10 }}MiB}
{{- end }}
{{- end }}
