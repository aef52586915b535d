package app

import (
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/term"

	"github.com/memhook/memhook/internal/nearest"
	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/webhook"
)

// Settings are the settings of an instance. Each field is named after its environment variable.
type Settings struct {
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
	CallbackProxy     *url.URL
	CallbackCA        *x509.CertPool
	RetrySchedule     []time.Duration
	DeliveryTimeout   time.Duration
	TaskExpiresIn     time.Duration
	SettleWindow      time.Duration
	Retention         time.Duration
	ShutdownTimeout   time.Duration
	DrainTime         time.Duration
	AlertURL          *url.URL
	AlertSecret       []byte
	AutoMigrate       bool
	LogLevel          slog.Level
	LogFormat         string

	self *webhook.Target // PublicURL; nil if it is unset
}

// SettingErrors are the settings that are missing or wrong, one line each.
type SettingErrors []string

// Error joins the lines.
func (e SettingErrors) Error() string { return strings.Join(e, "\n") }

// ReadSettings reads the settings that getenv returns and ignores blanks around a value. The settings
// named in required must be set. If any are missing or wrong, the error is a [SettingErrors].
func ReadSettings(getenv func(string) string, required ...string) (*Settings, error) {
	s := &Settings{}
	var wrong SettingErrors
	for _, st := range settingList(s) {
		v := strings.TrimSpace(getenv(st.name))
		if v == "" {
			v = st.def
		}
		switch {
		case v == "" && slices.Contains(required, st.name):
			wrong = append(wrong, fmt.Sprintf("%s: missing; for example %s", st.name, st.example))
		case v == "":
		default:
			if err := st.read(v); err != nil {
				wrong = append(wrong, fmt.Sprintf("%s: %s; for example %s", st.name, err, st.example))
			}
		}
	}
	if strings.TrimSpace(getenv("MEMHOOK_DRAIN_TIME")) == "" && onTerminal() {
		s.DrainTime = 0 // whoever presses Ctrl+C has no load balancer in front
	}
	if (s.TLSCert == "") != (s.TLSKey == "") {
		wrong = append(wrong, "MEMHOOK_TLS_CERT: must be set together with MEMHOOK_TLS_KEY; for example /etc/memhook/tls.crt")
	}
	if wrong != nil {
		return nil, wrong
	}
	return s, nil
}

// MisspeltSettings returns a line for each variable of an environment that is no setting and probably means one: it has no
// effect.
func MisspeltSettings(environ []string) (lines []string) {
	var known []string
	for _, st := range settingList(&Settings{}) {
		known = append(known, st.name)
	}
	for _, variable := range environ {
		name, _, _ := strings.Cut(variable, "=")
		near := nearest.Of(name, known)
		if near != "" && !slices.Contains(known, name) {
			lines = append(lines, name+" is not a setting; did you mean "+near+"?")
		}
	}
	return lines
}

// SettingsHelp lists the settings for --help.
func SettingsHelp() string {
	var b strings.Builder
	b.WriteString("Settings are environment variables:\n\n")
	for _, st := range settingList(&Settings{}) {
		fmt.Fprintf(&b, "%s: %s", st.name, st.help)
		if st.def != "" {
			fmt.Fprintf(&b, " (default %s)", st.def)
		}
		b.WriteString("\n\n")
	}
	return b.String()
}

// Logger returns a logger with the level and the format that the settings choose. It writes to standard error.
func (s *Settings) Logger() *slog.Logger {
	opts := &slog.HandlerOptions{Level: s.LogLevel}
	if s.LogFormat == "text" || (s.LogFormat == "" && onTerminal()) {
		return slog.New(slog.NewTextHandler(os.Stderr, opts))
	}
	return slog.New(slog.NewJSONHandler(os.Stderr, opts))
}

func onTerminal() bool { return term.IsTerminal(int(os.Stderr.Fd())) }
