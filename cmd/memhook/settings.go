package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/memhook/memhook/memories"
	"github.com/memhook/memhook/store"
)

// settings are what the environment says. Each field is named after its variable; see [settingList].
type settings struct {
	DatabaseURL       string
	DatabasePooler    string
	Addr              string
	MetricsAddr       string
	AdminToken        string
	EncryptionKey     *store.Keyring
	APIKey            string
	MemoriesAPIKey    string
	MemoriesBaseURL   string
	RequestsPerSecond float64
	PublicURL         string
	TLSCert           string
	TLSKey            string
	TrustedProxies    []netip.Prefix
	MaxConnections    int
	KeyRateLimit      float64
	AllowHTTP         bool
	AllowedNetworks   []netip.Prefix
	DeniedPorts       []uint16
	RetrySchedule     []time.Duration
	DeliveryTimeout   time.Duration
	TaskExpiresIn     time.Duration
	SettleWindow      time.Duration
	Retention         time.Duration
	ShutdownTimeout   time.Duration
	AutoMigrate       bool
	LogLevel          slog.Level
	LogFormat         string
}

// setting is one variable of the environment.
type setting struct {
	name, def, help, example string
	read                     func(*settings, string) error
}

// settingList is every setting. The help and the README's table are made from it.
var settingList = []setting{
	{"DATABASE_URL", "", "PostgreSQL's connection string; required by serve and migrate", "postgres://memhook:secret@localhost:5432/memhook", func(s *settings, v string) error {
		u, err := url.Parse(v)
		if err == nil && u.Scheme != "postgres" && u.Scheme != "postgresql" {
			err = errors.New("must begin with postgres://")
		}
		s.DatabaseURL = v
		return plainURL(err)
	}},
	{"MEMHOOK_DATABASE_POOLER", "", "transaction where a pooler before PostgreSQL gives a session for one transaction only", "transaction", func(s *settings, v string) error {
		s.DatabasePooler = v
		if v != store.TransactionPooler {
			return errors.New("must be transaction, or nothing")
		}
		return nil
	}},
	{"MEMHOOK_ADDR", ":8080", "where the API listens", ":8080", text(func(s *settings) *string { return &s.Addr }, 1)},
	{"MEMHOOK_METRICS_ADDR", "", "where /metrics listens alone; without it, at MEMHOOK_ADDR", "127.0.0.1:9090", text(func(s *settings) *string { return &s.MetricsAddr }, 1)},
	{"MEMHOOK_ADMIN_TOKEN", "", "opens the admin API and the dashboard, which are off without it; at least 16 characters", "the output of: openssl rand -hex 24", text(func(s *settings) *string { return &s.AdminToken }, 16)},
	{"MEMHOOK_ENCRYPTION_KEY", "", "seals keys and secrets at rest: base64 of 32 bytes, or several separated by commas, the first of which seals; required by serve", "the output of: openssl rand -base64 32", func(s *settings, v string) (err error) {
		s.EncryptionKey, err = store.ParseKeyring(v)
		return err
	}},
	{"MEMHOOK_API_KEY", "", "makes the app default with this key; at least 16 characters", "the output of: openssl rand -hex 24", text(func(s *settings) *string { return &s.APIKey }, 16)},
	{"MEMORIES_API_KEY", "", "makes the account default with this key of memories.ai", "sk-mavi-…", text(func(s *settings) *string { return &s.MemoriesAPIKey }, 1)},
	{"MEMORIES_BASE_URL", memories.DefaultBaseURL, "where memories.ai answers", memories.DefaultBaseURL, webURL(func(s *settings) *string { return &s.MemoriesBaseURL })},
	{"MEMORIES_REQUESTS_PER_SECOND", "1", "the request budget of the account default", "1", func(s *settings, v string) (err error) {
		s.RequestsPerSecond, err = strconv.ParseFloat(v, 64)
		if err != nil || !(s.RequestsPerSecond > 0 && s.RequestsPerSecond <= 1000) {
			return errors.New("must be a number above 0, at most 1000")
		}
		return nil
	}},
	{"MEMHOOK_PUBLIC_URL", "", "where memories.ai reaches this service; builds the hint URLs", "https://memhook.example.com", webURL(func(s *settings) *string { return &s.PublicURL })},
	{"MEMHOOK_TLS_CERT", "", "the file of a certificate chain in PEM: MEMHOOK_ADDR then speaks TLS; read anew when it changes", "/etc/memhook/tls.crt", text(func(s *settings) *string { return &s.TLSCert }, 1)},
	{"MEMHOOK_TLS_KEY", "", "the file of its private key", "/etc/memhook/tls.key", text(func(s *settings) *string { return &s.TLSKey }, 1)},
	{"MEMHOOK_TRUSTED_PROXIES", "", "networks of proxies whose X-Forwarded-For and X-Forwarded-Proto are believed", "10.0.0.0/8", networks(func(s *settings) *[]netip.Prefix { return &s.TrustedProxies })},
	{"MEMHOOK_MAX_CONNECTIONS", "10000", "connections to MEMHOOK_ADDR at once; more wait", "10000", func(s *settings, v string) (err error) {
		if s.MaxConnections, err = strconv.Atoi(v); err != nil || s.MaxConnections < 1 {
			return errors.New("must be a number above 0")
		}
		return nil
	}},
	{"MEMHOOK_KEY_RATE_LIMIT", "0", "requests a second of an API key without a limit of its own, of each instance; 0 for no limit", "100", func(s *settings, v string) (err error) {
		if s.KeyRateLimit, err = strconv.ParseFloat(v, 64); err != nil || !(s.KeyRateLimit >= 0 && s.KeyRateLimit <= 100_000) {
			return errors.New("must be a number from 0 to 100000")
		}
		return nil
	}},
	{"MEMHOOK_ALLOW_HTTP_CALLBACKS", "false", "permits http:// callback URLs", "true", boolean(func(s *settings) *bool { return &s.AllowHTTP })},
	{"MEMHOOK_ALLOWED_CALLBACK_NETWORKS", "", "networks that callbacks may reach although they are private, loopback or otherwise special", "10.0.0.0/8,127.0.0.0/8", networks(func(s *settings) *[]netip.Prefix { return &s.AllowedNetworks })},
	{"MEMHOOK_DENIED_CALLBACK_PORTS", "", "ports that callbacks may not reach", "25,465", func(s *settings, v string) error {
		for part := range strings.SplitSeq(v, ",") {
			n, err := strconv.ParseUint(strings.TrimSpace(part), 10, 16)
			if err != nil {
				return fmt.Errorf("%q is not a port", part)
			}
			s.DeniedPorts = append(s.DeniedPorts, uint16(n))
		}
		return nil
	}},
	{"MEMHOOK_RETRY_SCHEDULE", "5s,5m,30m,2h,5h,10h,14h,20h,24h", "the delays after the first attempt, the second, …", "5s,5m,30m", func(s *settings, v string) error {
		for part := range strings.SplitSeq(v, ",") {
			d, err := time.ParseDuration(strings.TrimSpace(part))
			if err != nil || d <= 0 {
				return fmt.Errorf("%q is not a duration above 0", part)
			}
			s.RetrySchedule = append(s.RetrySchedule, d)
		}
		return nil
	}},
	{"MEMHOOK_DELIVERY_TIMEOUT", "15s", "how long one attempt may take", "15s", duration(func(s *settings) *time.Duration { return &s.DeliveryTimeout })},
	{"MEMHOOK_TASK_EXPIRES_IN", "24h", "when a task that says nothing expires", "24h", duration(func(s *settings) *time.Duration { return &s.TaskExpiresIn })},
	{"MEMHOOK_SETTLE_WINDOW", "10m", "how long a list may still grow", "10m", duration(func(s *settings) *time.Duration { return &s.SettleWindow })},
	{"MEMHOOK_RETENTION", "720h", "how long finished tasks, events, deliveries and attempts are kept", "720h", duration(func(s *settings) *time.Duration { return &s.Retention })},
	{"MEMHOOK_SHUTDOWN_TIMEOUT", "20s", "how long what is in flight may take to end after SIGTERM", "20s", duration(func(s *settings) *time.Duration { return &s.ShutdownTimeout })},
	{"MEMHOOK_AUTO_MIGRATE", "true", "lets serve migrate the database first", "false", boolean(func(s *settings) *bool { return &s.AutoMigrate })},
	{"MEMHOOK_LOG_LEVEL", "info", "debug, info, warn or error", "info", func(s *settings, v string) error {
		if s.LogLevel.UnmarshalText([]byte(v)) != nil {
			return errors.New("must be debug, info, warn or error")
		}
		return nil
	}},
	{"MEMHOOK_LOG_FORMAT", "", "json or text; without it text on a terminal, else json", "json", func(s *settings, v string) error {
		s.LogFormat = v
		if v != "json" && v != "text" {
			return errors.New("must be json or text")
		}
		return nil
	}},
}

// settingErrors are the settings that are missing or bad, a line each.
type settingErrors []string

func (e settingErrors) Error() string { return strings.Join(e, "\n") }

// readSettings reads the environment; getenv is os.Getenv but in tests. The named settings are required.
func readSettings(getenv func(string) string, required ...string) (*settings, error) {
	s := &settings{}
	var wrong settingErrors
	for _, st := range settingList {
		v := getenv(st.name)
		if v == "" {
			v = st.def
		}
		switch {
		case v == "" && slices.Contains(required, st.name):
			wrong = append(wrong, fmt.Sprintf("%s: missing; for example %s", st.name, st.example))
		case v == "":
		default:
			if err := st.read(s, v); err != nil {
				wrong = append(wrong, fmt.Sprintf("%s: %s; for example %s", st.name, err, st.example))
			}
		}
	}
	if (s.TLSCert == "") != (s.TLSKey == "") {
		wrong = append(wrong, "MEMHOOK_TLS_CERT: must be set together with MEMHOOK_TLS_KEY; for example /etc/memhook/tls.crt")
	}
	if wrong != nil {
		return nil, wrong
	}
	return s, nil
}

// settingsHelp lists the settings for --help.
func settingsHelp() string {
	var b strings.Builder
	for _, st := range settingList {
		fmt.Fprintf(&b, "%s: %s", st.name, st.help)
		if st.def != "" {
			fmt.Fprintf(&b, " (default %s)", st.def)
		}
		b.WriteString("\n\n")
	}
	return b.String()
}

// settingsTable lists the settings for the README.
func settingsTable() string {
	var b strings.Builder
	b.WriteString("| variable | default | |\n| --- | --- | --- |\n")
	for _, st := range settingList {
		def := "none"
		if st.def != "" {
			def = "`" + st.def + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", st.name, def, st.help)
	}
	return b.String()
}

// logger writes where and how the settings say.
func (s *settings) logger() *slog.Logger {
	opts := &slog.HandlerOptions{Level: s.LogLevel}
	if s.LogFormat == "text" || (s.LogFormat == "" && term.IsTerminal(int(os.Stderr.Fd()))) {
		return slog.New(slog.NewTextHandler(os.Stderr, opts))
	}
	return slog.New(slog.NewJSONHandler(os.Stderr, opts))
}

func text(field func(*settings) *string, least int) func(*settings, string) error {
	return func(s *settings, v string) error {
		if len(v) < least {
			return fmt.Errorf("must have at least %d characters", least)
		}
		*field(s) = v
		return nil
	}
}

func webURL(field func(*settings) *string) func(*settings, string) error {
	return func(s *settings, v string) error {
		u, err := url.Parse(v)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
			return errors.New("must be an absolute http or https URL")
		}
		*field(s) = strings.TrimSuffix(v, "/")
		return nil
	}
}

func duration(field func(*settings) *time.Duration) func(*settings, string) error {
	return func(s *settings, v string) error {
		d, err := time.ParseDuration(v)
		if err != nil || d <= 0 {
			return errors.New("must be a duration above 0")
		}
		*field(s) = d
		return nil
	}
}

func networks(field func(*settings) *[]netip.Prefix) func(*settings, string) error {
	return func(s *settings, v string) error {
		for part := range strings.SplitSeq(v, ",") {
			p, err := netip.ParsePrefix(strings.TrimSpace(part))
			if err != nil {
				return fmt.Errorf("%q is not a network in CIDR notation", part)
			}
			*field(s) = append(*field(s), p)
		}
		return nil
	}
}

func boolean(field func(*settings) *bool) func(*settings, string) error {
	return func(s *settings, v string) (err error) {
		if *field(s), err = strconv.ParseBool(v); err != nil {
			return errors.New("must be true or false")
		}
		return nil
	}
}

// plainURL says what is wrong with a URL without repeating it: it can hold a password.
func plainURL(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}
