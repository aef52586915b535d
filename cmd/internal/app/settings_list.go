package app

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/memhook/memhook/memories"
	"github.com/memhook/memhook/store"
	"github.com/memhook/memhook/webhook"
)

// setting is one environment variable.
type setting struct {
	name, def, example, help string
	read                     func(string) error // stores a value, which is not empty
}

// settingList has every setting, read into s. The help and docs/settings.md are generated from it.
func settingList(s *Settings) []setting { //nolint:funlen // it is a table
	return []setting{
		{
			"DATABASE_URL", "", "postgres://memhook:secret@localhost:5432/memhook",
			"PostgreSQL connection string; required by serve and migrate", s.databaseURL,
		},
		{
			"MEMHOOK_DATABASE_POOLER", "", "transaction",
			"must be transaction if memhook connects through a pooler in transaction mode",
			func(v string) error {
				if s.DatabasePooler = v; v != store.TransactionPooler {
					return errors.New("must be transaction, or unset")
				}
				return nil
			},
		},
		{"MEMHOOK_ADDR", ":8080", ":8080", "address that the API listens on", address(&s.Addr)},
		{
			"MEMHOOK_METRICS_ADDR", "", "127.0.0.1:9090",
			"separate address for /metrics; if unset, MEMHOOK_ADDR serves it to everybody, with the ids of accounts in place of their names",
			address(&s.MetricsAddr),
		},
		{
			"MEMHOOK_ADMIN_TOKEN", "", "the output of: openssl rand -hex 24",
			"token of the admin API and the dashboard, at least 16 printable ASCII characters without blanks; both are off without it",
			secret(&s.AdminToken, 16),
		},
		{
			"MEMHOOK_ENCRYPTION_KEY", "", "the output of: openssl rand -base64 32",
			"base64 of the 32-byte key that encrypts API keys and secrets in the database; of several keys, separated by commas, " +
				"the first encrypts and all decrypt; required by serve",
			func(v string) (err error) {
				s.EncryptionKey, err = store.ParseKeyring(v)
				return err
			},
		},
		{
			"MEMHOOK_API_KEY", "", "the output of: openssl rand -hex 24",
			`creates an app named "default" with this API key, at least 16 printable ASCII characters without blanks; changing it revokes ` +
				"the previous key at the next start", secret(&s.APIKey, 16),
		},
		{
			"MEMORIES_API_KEY", "", "sk-mavi-…",
			`creates an account named "default" with this memories.ai API key, of the Datalake API if it begins with sk-mai-, else of v1; ` +
				`it replaces the account's key only when it has changed`, secret(&s.MemoriesAPIKey, 1),
		},
		{
			"MEMORIES_BASE_URL", memories.DefaultBaseURL, memories.DefaultBaseURL,
			"base URL of memories.ai",
			func(v string) (err error) {
				s.MemoriesBaseURL, _, err = webURL(v)
				return err
			},
		},
		{
			"MEMORIES_REQUESTS_PER_SECOND", "1", "1",
			`request budget of the account "default", in requests per second; it replaces the account's budget only when it has changed`,
			number(&s.RequestsPerSecond, 0.01, 1000),
		},
		{
			"MEMHOOK_PUBLIC_URL", "", "https://memhook.example.com",
			"URL at which memories.ai and customers reach this service; hint URLs and portal links start with it",
			func(v string) (err error) {
				s.PublicURL, s.self, err = webURL(v)
				return err
			},
		},
		{
			"MEMHOOK_TLS_CERT", "", "/etc/memhook/tls.crt",
			"PEM file with a certificate chain; MEMHOOK_ADDR then serves TLS; a changed file is reloaded within a minute",
			text(&s.TLSCert, 1),
		},
		{"MEMHOOK_TLS_KEY", "", "/etc/memhook/tls.key", "PEM file with the private key of MEMHOOK_TLS_CERT", text(&s.TLSKey, 1)},
		{
			"MEMHOOK_TRUSTED_PROXIES", "", "10.0.0.0/8",
			"networks of the proxies whose X-Forwarded-For and X-Forwarded-Proto headers are trusted", networks(&s.TrustedProxies),
		},
		{
			"MEMHOOK_MAX_CONNECTIONS", "10000", "10000",
			"maximum number of open connections to MEMHOOK_ADDR; further ones wait",
			func(v string) (err error) {
				if s.MaxConnections, err = strconv.Atoi(v); err != nil || s.MaxConnections < 1 {
					return errors.New("must be a number above 0")
				}
				return nil
			},
		},
		{
			"MEMHOOK_KEY_RATE_LIMIT", "0", "100",
			"requests per second that each instance accepts from an API key without a limit of its own; 0 means no limit",
			number(&s.KeyRateLimit, 0, 100_000),
		},
		{"MEMHOOK_ALLOW_HTTP_CALLBACKS", "false", "true", "allows http:// callback URLs", boolean(&s.AllowHTTP)},
		{
			"MEMHOOK_ALLOWED_CALLBACK_NETWORKS", "", "10.0.0.0/8,127.0.0.0/8",
			"private, loopback or other special networks that callbacks may reach", networks(&s.AllowedNetworks),
		},
		{"MEMHOOK_DENIED_CALLBACK_PORTS", "", "25,465", "ports that callbacks may not reach", list(&s.DeniedPorts, "a port", parsePort)},
		{
			"MEMHOOK_CALLBACK_PROXY", "", "http://user:password@proxy.internal:3128",
			"HTTP or HTTPS proxy that all callbacks leave through; the guard then judges the name and the literal address of a target, " +
				"not what the name resolves to", s.proxyURL,
		},
		{
			"MEMHOOK_CALLBACK_CA", "", "/etc/memhook/ca.pem",
			"PEM file of certificates that are trusted for callbacks in addition to the system's", s.callbackCA,
		},
		{
			"MEMHOOK_RETRY_SCHEDULE", "5s,5m,30m,2h,5h,10h,14h,20h,24h", "5s,5m,30m",
			"delays before the second attempt of a delivery, the third, and so on",
			list(&s.RetrySchedule, "a duration above 0 with a unit", parseDuration),
		},
		{"MEMHOOK_DELIVERY_TIMEOUT", "15s", "15s", "time limit of one delivery attempt", duration(&s.DeliveryTimeout)},
		{"MEMHOOK_TASK_EXPIRES_IN", "24h", "24h", "default time until a task expires", duration(&s.TaskExpiresIn)},
		{
			"MEMHOOK_SETTLE_WINDOW", "10m", "10m",
			"how long a task is polled for further videos after its list last grew", duration(&s.SettleWindow),
		},
		{
			"MEMHOOK_RETENTION", "720h", "720h",
			"how long finished tasks, events, deliveries and attempts are kept", duration(&s.Retention),
		},
		{
			"MEMHOOK_SHUTDOWN_TIMEOUT", "20s", "20s",
			"how long requests, polls and deliveries in flight may take to finish after SIGTERM", duration(&s.ShutdownTimeout),
		},
		{
			"MEMHOOK_DRAIN_TIME", "5s", "5s",
			"how long requests are still served after SIGTERM, while /readyz answers 503, so that load balancers send new ones elsewhere; " +
				"0s on a terminal",
			func(v string) (err error) {
				if s.DrainTime, err = time.ParseDuration(v); err != nil || s.DrainTime < 0 {
					return errors.New("must be a duration with a unit, at least 0s")
				}
				return nil
			},
		},
		{
			"MEMHOOK_ALERT_URL", "", "https://hooks.slack.com/services/…",
			"URL that receives one webhook for each change of state: an account is refused, an endpoint fails, is disabled or works again, " +
				`retries are used up, deliveries wait for a worker; Slack's hooks, and URLs that end in #text, get {"text":"…"}`, s.alertURL,
		},
		{
			"MEMHOOK_ALERT_SECRET", "", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
			"secret that signs what MEMHOOK_ALERT_URL is sent, as webhooks are signed: whsec_ followed by base64 of 24 to 64 bytes",
			func(v string) (err error) {
				if s.AlertSecret, err = webhook.ParseSecret(v); err != nil {
					return errors.New("must be whsec_ followed by base64 of 24 to 64 bytes")
				}
				return nil
			},
		},
		{"MEMHOOK_AUTO_MIGRATE", "true", "false", "makes serve migrate the database when it starts", boolean(&s.AutoMigrate)},
		{
			"MEMHOOK_LOG_LEVEL", "info", "info", "debug, info, warn or error",
			func(v string) error {
				if s.LogLevel.UnmarshalText([]byte(v)) != nil {
					return errors.New("must be debug, info, warn or error")
				}
				return nil
			},
		},
		{
			"MEMHOOK_LOG_FORMAT", "", "json", "json or text; if unset, text on a terminal and json otherwise",
			func(v string) error {
				s.LogFormat = v
				if v != "json" && v != "text" {
					return errors.New("must be json or text")
				}
				return nil
			},
		},
	}
}

// databaseURL never repeats the URL in its error: the URL can hold a password.
func (s *Settings) databaseURL(v string) error {
	u, err := url.Parse(v)
	// The driver takes what follows an unencoded / or # of the password for the name of the database or the host, and shows it.
	if err != nil || strings.Contains(u.EscapedPath(), "@") || u.User != nil && strings.Contains(u.Fragment, "@") {
		return errors.New("is not a URL; percent-encode special characters of the password, such as %2F for /")
	}
	if u.Scheme != "postgres" && u.Scheme != "postgresql" {
		return errors.New("must begin with postgres://")
	}
	if _, err = pgxpool.ParseConfig(v); err != nil { // its text shows the URL
		reason := "look at the parameters after the question mark, and at the environment's PG… variables"
		if file, ok := errors.AsType[*fs.PathError](err); ok {
			reason = file.Error()
		}
		return fmt.Errorf("is not accepted by PostgreSQL's driver: %s", reason)
	}
	s.DatabaseURL = v
	return nil
}

// alertURL never repeats the URL in its error: the URL can be a secret.
func (s *Settings) alertURL(v string) error {
	u, err := url.Parse(v)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return errors.New("must be an absolute http or https URL")
	}
	s.AlertURL = u
	return nil
}

// address is where to listen. Whether its host exists and its port is free is known only when it is opened.
func address(field *string) func(string) error {
	return func(v string) error {
		host, port, err := net.SplitHostPort(v)
		if err == nil {
			_, err = strconv.ParseUint(port, 10, 16)
		}
		if _, literal := netip.ParseAddr(host); err == nil && literal != nil && host != "" {
			_, err = webhook.ParseTarget("http://" + host) // which knows the names that are numbers and no addresses
		}
		if err != nil {
			return errors.New("must be host:port or :port, the host a name or an IP address, the port a number up to 65535")
		}
		*field = v
		return nil
	}
}

func text(field *string, least int) func(string) error {
	return func(v string) error {
		if len(v) < least {
			return fmt.Errorf("must have at least %d characters", least)
		}
		*field = v
		return nil
	}
}

// secret is text that goes into a header or comes in one.
func secret(field *string, least int) func(string) error {
	return func(v string) error {
		if !store.ValidKey(v) {
			return errors.New("must have only printable ASCII characters and no spaces inside")
		}
		return text(field, least)(v)
	}
}

// webURL returns the normal form of a URL that paths are appended to, without a slash at its end.
func webURL(v string) (string, *webhook.Target, error) {
	u, err := url.Parse(v)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil || strings.ContainsAny(v, "?#") {
		return "", nil, errors.New("must be an absolute http or https URL without user name, query and fragment")
	}
	target, err := webhook.ParseTarget(v)
	return strings.TrimSuffix(target.Endpoint(), "/"), &target, err
}

func number(field *float64, least, most float64) func(string) error {
	return func(v string) error {
		n, err := strconv.ParseFloat(v, 64)
		if err != nil || !(n >= least && n <= most) { // nor is NaN
			return fmt.Errorf("must be a number from %g to %.0f", least, most)
		}
		*field = n
		return nil
	}
}

func duration(field *time.Duration) func(string) error {
	return func(v string) (err error) {
		*field, err = parseDuration(v)
		return err
	}
}

func parseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		return 0, errors.New("must be a duration above 0 with a unit (a day is 24h)")
	}
	return d, nil
}

// list reads values that commas separate. what names one in errors.
func list[T any](field *[]T, what string, parse func(string) (T, error)) func(string) error {
	return func(v string) error {
		for part := range strings.SplitSeq(v, ",") {
			item, err := parse(strings.TrimSpace(part))
			if err != nil {
				return fmt.Errorf("%q is not %s", part, what)
			}
			*field = append(*field, item)
		}
		return nil
	}
}

func networks(field *[]netip.Prefix) func(string) error {
	return list(field, "a network in CIDR notation (an address alone ends in /32 or /128)", netip.ParsePrefix)
}

func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	return uint16(n), err
}

func boolean(field *bool) func(string) error {
	return func(v string) (err error) {
		if *field, err = strconv.ParseBool(v); err != nil {
			return errors.New("must be true or false")
		}
		return nil
	}
}
