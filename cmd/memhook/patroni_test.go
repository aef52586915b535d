package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/memhook/memhook/store/localpg"
)

// patroniConfig is the file that the documentation tells an operator to use.
const patroniConfig = "../../deploy/patroni/node1.yml"

// patroni is two PostgreSQLs under Patroni with one etcd.
type patroni struct {
	t     *testing.T
	dir   string
	etcd  string // its address
	nodes [2]*patroniNode
}

// patroniNode is a Patroni with its PostgreSQL.
type patroniNode struct {
	name, api, sql, data string
	env                  []string
	cmd                  *exec.Cmd
}

// newPatroni runs etcd and both nodes, and returns when one leads and the other is its synchronous standby. By then memhook's
// role and database are made.
func newPatroni(t *testing.T) *patroni {
	t.Helper()
	control, err := localpg.Program("pg_controldata")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "memhook-patroni-") // another user must reach it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	c := &patroni{t: t, dir: dir, etcd: freeAddr(t)}
	peers := "http://" + freeAddr(t)
	c.run("etcd", nil, "etcd", "--data-dir", filepath.Join(dir, "etcd"), "--logger", "zap", "--log-level", "warn",
		"--listen-client-urls", "http://"+c.etcd, "--advertise-client-urls", "http://"+c.etcd,
		"--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers, "--initial-cluster", "default="+peers)
	until(t, 20*time.Second, "etcd answers", func() bool { return answers("http://" + c.etcd + "/health") })
	for i := range c.nodes {
		n := &patroniNode{name: fmt.Sprintf("node%d", i+1), api: freeAddr(t), sql: freeAddr(t)}
		n.data = filepath.Join(dir, n.name)
		n.env = []string{
			"PATRONI_NAME=" + n.name, "PATRONI_ETCD3_HOSTS=" + c.etcd, "PATRONI_RESTAPI_LISTEN=" + n.api, "PATRONI_RESTAPI_CONNECT_ADDRESS=" + n.api,
			"PATRONI_POSTGRESQL_LISTEN=" + n.sql, "PATRONI_POSTGRESQL_CONNECT_ADDRESS=" + n.sql, "PATRONI_POSTGRESQL_DATA_DIR=" + n.data,
			"PATRONI_POSTGRESQL_BIN_DIR=" + filepath.Dir(control), "PATRONI_POSTGRESQL_PGPASS=" + n.data + ".pgpass",
		}
		c.nodes[i] = n
		c.start(n)
		if i == 0 {
			until(t, time.Minute, "the first node leads", func() bool { return answers("http://" + n.api + "/primary") })
		}
	}
	until(t, time.Minute, "the second node is a synchronous standby", func() bool { return answers("http://" + c.nodes[1].api + "/sync") })
	conn, err := c.nodes[0].connect()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	for _, sql := range []string{`create role memhook login password 'memhook'`, `create database memhook owner memhook`} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	return c
}

// run starts a program of the cluster as PostgreSQL's user, until the test is over.
func (c *patroni) run(name string, env []string, program string, args ...string) *exec.Cmd {
	c.t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		c.t.Fatalf("%v (Debian: apt-get install patroni etcd-server)", err)
	}
	cmd := exec.Command(path, args...)
	cmd.Env = append([]string{"PATH=/usr/bin:/bin", "HOME=" + c.dir, "LANG=C.UTF-8"}, env...)
	cmd.Dir = c.dir
	if err := localpg.AsOwner(cmd, c.dir); err != nil {
		c.t.Fatal(err)
	}
	var log safeBuffer
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.WaitDelay = time.Second // for what it has started and left
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGCONT)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if c.t.Failed() {
			lines := strings.Split(log.String(), "\n")
			c.t.Logf("the end of the log of %s:\n%s", name, strings.Join(lines[max(0, len(lines)-40):], "\n"))
		}
	})
	return cmd
}

// start runs a node's Patroni, which starts its PostgreSQL.
func (c *patroni) start(n *patroniNode) {
	c.t.Helper()
	config, err := os.ReadFile(patroniConfig)
	if err != nil {
		c.t.Fatal(err)
	}
	file := filepath.Join(c.dir, n.name+".yml")
	if err := os.WriteFile(file, config, 0o644); err != nil { // read by another user
		c.t.Fatal(err)
	}
	n.cmd = c.run(n.name, n.env, "patroni", file)
	c.t.Cleanup(func() { _ = n.signal(syscall.SIGKILL) }) // PostgreSQL too, which would outlive Patroni
}

// ctl runs patronictl to its end.
func (c *patroni) ctl(args ...string) {
	c.t.Helper()
	cmd := exec.Command("patronictl", append([]string{"-c", filepath.Join(c.dir, c.nodes[0].name+".yml")}, args...)...)
	cmd.Env = append([]string{"PATH=/usr/bin:/bin", "LANG=C.UTF-8"}, c.nodes[0].env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		c.t.Errorf("patronictl %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// url names both nodes, as an operator does.
func (c *patroni) url() string {
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword("memhook", "memhook"), Path: "/memhook",
		Host: c.nodes[0].sql + "," + c.nodes[1].sql, RawQuery: "target_session_attrs=read-write",
	}
	return u.String()
}

// signal signals a node as its machine would: Patroni, and PostgreSQL with all its processes.
func (n *patroniNode) signal(sig syscall.Signal) error {
	err := n.cmd.Process.Signal(sig)
	pid, errPID := n.pid()
	if errPID != nil {
		return errors.Join(err, errPID)
	}
	return errors.Join(err, localpg.SignalFamily(pid, sig))
}

// pid returns the process id of the node's PostgreSQL.
func (n *patroniNode) pid() (int, error) {
	content, err := os.ReadFile(filepath.Join(n.data, "postmaster.pid"))
	if err != nil {
		return 0, err
	}
	first, _, _ := bytes.Cut(content, []byte("\n"))
	return strconv.Atoi(string(first))
}

func (c *patroni) signal(n *patroniNode, sig syscall.Signal) {
	c.t.Helper()
	if err := n.signal(sig); err != nil {
		c.t.Fatal(err)
	}
}

// connect connects as the file's superuser.
func (n *patroniNode) connect() (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return pgx.Connect(ctx, "postgres://postgres:change-this-one@"+n.sql+"/postgres")
}

// promotion waits until the node takes writes and returns when it last did not.
func (n *patroniNode) promotion(t *testing.T) time.Time {
	t.Helper()
	conn, err := n.connect()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(context.Background()) }()
	last := time.Now()
	for deadline := last.Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		asked, standby := time.Now(), true
		if err := conn.QueryRow(t.Context(), `select pg_is_in_recovery()`).Scan(&standby); err != nil {
			t.Fatal(err)
		}
		if !standby {
			return last
		}
		if last = asked; last.After(deadline) {
			t.Fatal("the standby was not promoted within a minute")
		}
	}
}

// answers reports whether an address answers with 200 within a second.
func answers(address string) bool {
	client := &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: (&net.Dialer{}).DialContext}}
	resp, err := client.Get(address)
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// Two PostgreSQLs under Patroni, as docs/scaling.md sets them up, whose leader is switched over, killed and frozen. Patroni
// promotes the synchronous standby, and memhook goes on as with a promotion by hand. The old leader comes back as a standby.
func TestPatroni(t *testing.T) {
	if !long {
		t.Skip("takes minutes: make failover")
	}
	for _, fault := range []struct {
		name   string
		within time.Duration
		strike func(c *patroni, leader *patroniNode)
		mend   func(c *patroni, leader *patroniNode)
	}{
		{"switched over", 5 * time.Second, func(c *patroni, leader *patroniNode) {
			pid, err := leader.pid()
			if err != nil {
				c.t.Fatal(err)
			}
			go c.ctl("switchover", "--leader", leader.name, "--force", "memhook")
			until(c.t, time.Minute, "the leader stops", func() bool { return syscall.Kill(pid, 0) != nil })
		}, nil},
		{"killed", 5 * time.Second, func(c *patroni, leader *patroniNode) { c.signal(leader, syscall.SIGKILL) }, (*patroni).start},
		{"frozen", 15 * time.Second, func(c *patroni, leader *patroniNode) { c.signal(leader, syscall.SIGSTOP) }, func(c *patroni, leader *patroniNode) { c.signal(leader, syscall.SIGCONT) }},
	} {
		t.Run(fault.name, func(t *testing.T) {
			c := newPatroni(t)
			leader, standby := c.nodes[0], c.nodes[1]
			failover(t, fault.name, c.url(), fault.within, func() (silent, promoted time.Time) {
				fault.strike(c, leader)
				silent = time.Now()
				return silent, standby.promotion(t)
			})
			if fault.mend != nil {
				fault.mend(c, leader)
			}
			until(t, 2*time.Minute, "the old leader is a synchronous standby", func() bool { return answers("http://" + leader.api + "/sync") })
		})
	}
}
