package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// helm returns the program: the one that `make bin/helm` has built, or the machine's. Where there is none, the test is skipped.
func helm(t *testing.T) string {
	t.Helper()
	built := repository(t, "bin/helm")
	if _, err := os.Stat(built); err == nil {
		return built
	}
	program, err := exec.LookPath("helm")
	if err != nil {
		t.Skip("helm is not installed: make test-helm builds it, which takes minutes, and runs this test")
	}
	return program
}

// The page's commands are run as they stand there, but for those that need a cluster.
func TestTheInstallationWithHelm(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Symlink(repository(t, "deploy"), filepath.Join(dir, "deploy")); err != nil {
		t.Fatal(err)
	}
	env := append(os.Environ(), "PATH="+filepath.Dir(helm(t))+":"+os.Getenv("PATH"))
	said, _ := runDocument(t, "docs/install-helm.md", dir, env, strings.NewReplacer())
	for _, want := range []string{"0 chart(s) failed", `value: "https://memhook.example"`, "host: memhook.example", "secretName: memhook-tls", "cidr: 10.0.0.0/8"} {
		if !strings.Contains(said, want) {
			t.Errorf("the page's commands do not say %q:\n%s", want, said)
		}
	}
}

// The chart makes the same pods as the plain files, whatever its values are.
func TestTheHelmChart(t *testing.T) {
	t.Parallel()
	program := helm(t)
	render := func(values ...string) (string, error) {
		args := []string{"template", "memhook", repository(t, "deploy/helm/memhook"), "--kube-version", "1.31.0"}
		for _, v := range values {
			args = append(args, "--set", v)
		}
		out, err := exec.Command(program, args...).CombinedOutput()
		return string(out), err
	}
	read := func(file string) string {
		raw, err := os.ReadFile(repository(t, file))
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	plain := read("deploy/kubernetes/api.yaml") + read("deploy/kubernetes/worker.yaml") + read("deploy/kubernetes/migrate.yaml")
	help, err := exec.Command(binary, "--help").CombinedOutput()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		values []string
		pods   int
		want   []string
		not    []string
	}{
		"defaults": {
			nil, 3, []string{
				"terminationGracePeriodSeconds: 30", "args: [serve, --role, api]", "args: [serve, --role, worker]",
				"{name: GOMEMLIMIT, value: 230MiB}", "helm.sh/hook: pre-install,pre-upgrade", `{name: MEMHOOK_AUTO_MIGRATE, value: "false"}`,
			}, []string{"kind: Ingress", "kind: HorizontalPodAutoscaler", "ServiceMonitor", "lifecycle"},
		},
		"a slow stop": {
			[]string{"drainSeconds=15", "shutdownSeconds=40", "preStopSeconds=10"}, 3,
			[]string{"terminationGracePeriodSeconds: 70", `{name: MEMHOOK_DRAIN_TIME, value: "15s"}`, `{name: MEMHOOK_SHUTDOWN_TIMEOUT, value: "40s"}`, "lifecycle: {preStop: {sleep: {seconds: 10}}}"}, nil,
		},
		"one deployment": {[]string{"split=false", "migrate.enabled=false"}, 1, []string{"args: [serve, --role, all]", `{name: MEMHOOK_AUTO_MIGRATE, value: "true"}`}, []string{"--role, worker", "kind: Job"}},
		"more memory":    {[]string{"api.resources.limits.memory=1Gi"}, 3, []string{"{name: GOMEMLIMIT, value: 921MiB}"}, nil},
		"a setting":      {[]string{"settings.MEMHOOK_DELIVERY_TIMEOUT=5s"}, 3, []string{`{name: MEMHOOK_DELIVERY_TIMEOUT, value: "5s"}`}, nil},
		"scaled":         {[]string{"worker.autoscaling.enabled=true"}, 3, []string{"kind: HorizontalPodAutoscaler", "maxReplicas: 8"}, nil},
		"monitored":      {[]string{"serviceMonitor.enabled=true", "networkPolicy.enabled=false"}, 3, []string{"kind: ServiceMonitor"}, []string{"NetworkPolicy"}},
		"an ingress without the admin pages": {
			[]string{"ingress.enabled=true", "ingress.host=memhook.example", "ingress.admin=false"}, 3,
			[]string{"- path: /v1", "- path: /docs", "- path: /portal"}, []string{"- path: /\n", "- path: /admin"},
		},
	} {
		out, err := render(c.values...)
		if err != nil {
			t.Errorf("%s: %v: %s", name, err, out)
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(out, want) {
				t.Errorf("%s: there is no %q", name, want)
			}
		}
		for _, not := range c.not {
			if strings.Contains(out, not) {
				t.Errorf("%s: there is %q", name, not)
			}
		}
		// What each pod has, line for line as in the plain files.
		for _, line := range []string{
			"{allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}",
			"{runAsNonRoot: true, runAsUser: 65532, seccompProfile: {type: RuntimeDefault}}", "automountServiceAccountToken: false",
		} {
			if n := strings.Count(out, line); n != c.pods || !strings.Contains(plain, line) {
				t.Errorf("%s: %d of %d pods have %s", name, n, c.pods, line)
			}
		}
		for _, m := range regexp.MustCompile(`(?m)^ +((?:liveness|readiness)Probe: .*|metric: \{.*)$`).FindAllString(out, -1) {
			if !strings.Contains(plain, strings.TrimSpace(m)) {
				t.Errorf("%s: the plain files do not have %s", name, strings.TrimSpace(m))
			}
		}
		for _, m := range regexp.MustCompile(`name: (ME[A-Z]+_[A-Z_]+)`).FindAllStringSubmatch(out, -1) {
			if !strings.Contains(string(help), m[1]) {
				t.Errorf("%s: there is no setting %s", name, m[1])
			}
		}
	}
	if out, err := render("ingress.enabled=true"); err == nil || !strings.Contains(out, "ingress.host is the name at which memhook is reached") {
		t.Errorf("an ingress without a host: %v: %s", err, out)
	}
}
