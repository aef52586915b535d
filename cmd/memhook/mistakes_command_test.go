package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/memhook/memhook/store/storetest"
)

// Each typical mistake on the command line ends with status 2 before anything is done, and with a text that names what is
// wrong and what is wanted or was meant.
func TestCommandMistakesAreExplained(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ args, env, says string }{
		{"server", "", `did you mean "serve"`},
		{"task list", "", `did you mean "tasks"`},
		{"tasks lst", "", `did you mean one of "get", "list"`},
		{"doctr", "", `did you mean "doctor"`},
		{"migrate", "", `expected one of "up", "down", "status"`},
		{"serve --rol api", "", `unknown flag --rol, did you mean "--role"`},
		{"serve --role web", "", `--role must be one of "all","api","worker" but got "web"`},
		{"tasks list --status done", "", `--status must be one of`},
		{"tasks register a", "", `expected "<callback-url>"`},
		{"tasks register a https://a.example/ --metadata order", "", `--metadata: expected "<key>=<value>" but got "order"`},
		{"tasks wait a --timeout 10", "", "missing unit"},
		{"tasks list", "MEMHOOK_API_KEY=", "MEMHOOK_API_KEY is required: the app's API key, such as mh_"},
		{"tasks list", "MEMHOOK_API_KEY=\r\n", "MEMHOOK_API_KEY is required: the app's API key, such as mh_"},
		{"tasks list", "MEMHOOK_API_KEY=mh_a\nmh_b", "MEMHOOK_API_KEY must have only printable ASCII characters and no spaces inside, such as mh_"},
		{"tasks list", "MEMHOOK_URL=localhost:8080", "MEMHOOK_URL must be the http or https URL of a memhook, such as https://"},
		{"serve", "DATABASE_URL=", "DATABASE_URL: missing; for example postgres://"},
		{"serve", "DATABASE_URL=localhost/memhook", "must begin with postgres://"},
		{"serve", "DATABASE_URL=postgres://u:p/w@h/db", "percent-encode special characters of the password"},
		{"serve", "DATABASE_URL=postgres://u:83/w@h/db", "percent-encode special characters of the password"},
		{"serve", "DATABASE_URL=postgres://h/db?sslmode=on", "look at the parameters after the question mark"},
		{"migrate status", "DATABASE_URL=postgres://h/db?pool_max_conns=many", "look at the parameters after the question mark"},
		{"doctor", "DATABASE_URL=postgres://h/db?sslrootcert=/nowhere", "DATABASE_URL: is not accepted by PostgreSQL's driver: open /nowhere: "},
		{"serve", "MEMHOOK_ENCRYPTION_KEY=abc", "key 1 is not base64 of 32 bytes; for example the output of: openssl"},
		{"serve", "MEMHOOK_ADMIN_TOKEN=short", "must have at least 16 characters"},
		{"serve", "MEMHOOK_ADDR=8080", "must be host:port or :port"},
		{"serve", "MEMHOOK_ADDR=256.1.1.1:80", "the host a name or an IP address"},
		{"health", "MEMHOOK_METRICS_ADDR=127.1:80", "the host a name or an IP address"},
		{"serve", "MEMHOOK_RETRY_SCHEDULE=5,10", `"5" is not a duration above 0 with a unit; for example 5s,5m,30m`},
		{"serve", "MEMHOOK_RETENTION=30d", "with a unit (a day is 24h); for example 720h"},
		{"serve", "MEMHOOK_DELIVERY_TIMEOUT=15", "with a unit (a day is 24h); for example 15s"},
		{"serve", "MEMHOOK_ALLOW_HTTP_CALLBACKS=yes", "must be true or false"},
		{"serve", "MEMHOOK_ALLOWED_CALLBACK_NETWORKS=10.0.0.1", "an address alone ends in /32"},
		{"serve", "MEMORIES_REQUESTS_PER_SECOND=1/s", "must be a number from 0.01 to 1000"},
		{"serve", "MEMHOOK_PUBLIC_URL=memhook.example", "must be an absolute http or https URL"},
		{"serve", "MEMHOOK_PUBLIC_URL=https://memhook.example/?x=1", "without user name, query and fragment; for example https://"},
		{"serve", "MEMHOOK_PUBLIC_URL=https://memhook.example/#x", "without user name, query and fragment; for example https://"},
		{"serve", "MEMHOOK_PUBLIC_URL=https://me:pw@memhook.example", "without user name, query and fragment; for example https://"},
		{"serve", "MEMHOOK_PUBLIC_URL=https://127.1/", "an IP address must have its usual notation, such as 203.0.113.7; for example https://"},
		{"serve", "MEMHOOK_PUBLIC_URL=https://memhook.example:0", "a number from 1 to 65535 as its port; for example https://"},
		{"serve", "MEMORIES_BASE_URL=https://memories.example/?x=1", "without user name, query and fragment; for example https://"},
		{"serve", "MEMORIES_BASE_URL=https://memories.example:99999", "a number from 1 to 65535 as its port; for example https://"},
		{"serve", "MEMHOOK_LOG_LEVEL=trace", "must be debug, info, warn or error"},
		{"doctor", "MEMHOOK_LOG_LEVEL=trace", "MEMHOOK_LOG_LEVEL: must be debug, info, warn or error"},
	} {
		cmd := exec.Command(binary, strings.Fields(c.args)...)
		cmd.Env = []string{
			"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "MEMHOOK_API_KEY=" + testAPIKey, "MEMHOOK_URL=http://127.0.0.1:1",
			"DATABASE_URL=postgres://127.0.0.1:1/none", "MEMHOOK_ENCRYPTION_KEY=" + storetest.EncryptionKey, c.env, "GOCOVERDIR=" + coverDir,
		}
		out, err := cmd.CombinedOutput()
		if err == nil || cmd.ProcessState.ExitCode() != 2 || !strings.Contains(string(out), c.says) {
			t.Errorf("%s memhook %s: %v, does not say %q:\n%s", c.env, c.args, err, c.says, out)
		}
		for _, word := range foreign {
			if strings.Contains(string(out), word) && word != "expected " {
				t.Errorf("%s memhook %s says %q: %s", c.env, c.args, word, out)
			}
		}
	}
	for _, args := range [][]string{{"help", "tasks"}, {"help", "tasks", "register"}} {
		if out, err := exec.Command(binary, args...).CombinedOutput(); err != nil || !strings.Contains(string(out), "memhook tasks") {
			t.Errorf("memhook %s: %v %s", strings.Join(args, " "), err, out)
		}
	}
}
