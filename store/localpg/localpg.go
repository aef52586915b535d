// Package localpg runs a private PostgreSQL for the demo, the tests and the benchmarks: an installed
// one's programs, as an unprivileged user, on a Unix socket in a folder of its own, gone with the
// program that started it.
package localpg

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
)

const (
	userName     = "memhook"
	startTimeout = 30 * time.Second
	// quitTimeout is how long an immediate shutdown may take: PostgreSQL kills what has not ended after 5 s.
	quitTimeout = 10 * time.Second
	// maxSocketPath is what the systems' socket addresses hold, less the socket's own name.
	maxSocketPath = 85
)

// Options shape a server.
type Options struct {
	Durable  bool              // commits reach the disk, as in production; without, tests run faster
	Settings map[string]string // further settings of postgresql.conf
	Parent   string            // where its folder is made; empty for the user's cache
}

// Server is a running PostgreSQL.
type Server struct {
	dir, bin string
	opts     Options
	owner    *syscall.Credential // nil: ourselves
	cmd      *exec.Cmd
	done     chan struct{} // closed when the process has ended
	log      bytes.Buffer
}

// Start makes a new, empty database cluster and runs a server on it. Stop ends it and removes it; so
// does the end of this process, where the system has a way to see to that.
func Start(ctx context.Context, opts Options) (*Server, error) {
	bin, err := find()
	if err != nil {
		return nil, err
	}
	s := &Server{bin: bin, opts: opts}
	if os.Geteuid() == 0 {
		if s.owner, err = unprivileged(); err != nil {
			return nil, err
		}
	}
	if s.dir, err = makeDir(opts.Parent, s.owner); err != nil {
		return nil, err
	}
	if err := s.init(ctx); err != nil {
		_ = os.RemoveAll(s.dir)
		return nil, err
	}
	if err := s.Run(ctx); err != nil {
		_ = os.RemoveAll(s.dir)
		return nil, err
	}
	return s, nil
}

func (s *Server) port() string { return cmp.Or(s.opts.Settings["port"], "5432") }

// URL returns the connection string of a database of the server.
func (s *Server) URL(database string) string {
	where := url.Values{"host": {s.dir}, "port": {s.port()}}
	u := url.URL{Scheme: "postgres", User: url.User(userName), Path: "/" + database, RawQuery: where.Encode()}
	return u.String()
}

// Alive reports whether the server's process runs.
func (s *Server) Alive() bool {
	select {
	case <-s.done:
		return false
	default:
		return true
	}
}

// PID returns the process id of the running server.
func (s *Server) PID() int { return s.cmd.Process.Pid }

func (s *Server) init(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin, "initdb"), "-D", s.data(), "-U", userName,
		"--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")
	cmd.SysProcAttr = attributes(s.owner, 0)
	cmd.Dir = s.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// Run starts the server on its cluster, which Start does at first, and Kill or Stop leave to be done again.
func (s *Server) Run(ctx context.Context) error {
	settings := map[string]string{
		"listen_addresses": "", "port": s.port(), // whatever PGPORT of the environment says
		"unix_socket_directories": s.dir, "unix_socket_permissions": "0700", "max_connections": "300",
		"shared_buffers": "256MB", "max_wal_size": "4GB", "log_min_messages": "fatal", "log_min_error_statement": "panic",
	}
	if !s.opts.Durable {
		settings["fsync"], settings["synchronous_commit"], settings["full_page_writes"] = "off", "off", "off"
	}
	maps.Copy(settings, s.opts.Settings)
	args := []string{"-D", s.data()}
	for k, v := range settings {
		args = append(args, "-c", k+"="+v)
	}
	s.cmd = exec.Command(filepath.Join(s.bin, "postgres"), args...)
	s.cmd.Dir = s.dir
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	s.cmd.WaitDelay = quitTimeout // one of its processes may outlive it, and has the same standard output
	s.cmd.SysProcAttr = attributes(s.owner, syscall.SIGINT)
	s.done = make(chan struct{})
	started := make(chan error)
	go func() {
		// The parent-death signal is tied to the thread that starts the process: it must live as long.
		runtime.LockOSThread()
		err := s.cmd.Start()
		started <- err
		if err == nil {
			_ = s.cmd.Wait()
			close(s.done)
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start postgres: %w", err)
	}
	return s.waitReady(ctx)
}

func (s *Server) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	pid := filepath.Join(s.data(), "postmaster.pid")
	for {
		select {
		case <-s.done:
			return fmt.Errorf("postgres ended at once: %s", bytes.TrimSpace(s.log.Bytes()))
		case <-ctx.Done():
			_ = s.Stop()
			return fmt.Errorf("postgres was not ready within %s", startTimeout)
		case <-time.After(20 * time.Millisecond):
		}
		// The file's eighth line says how far the server is.
		content, err := os.ReadFile(pid)
		if err != nil {
			continue
		}
		lines := strings.Split(string(content), "\n")
		if len(lines) >= 8 && slices.Contains([]string{"ready", "standby"}, strings.TrimSpace(lines[7])) {
			return nil
		}
	}
}

// Shutdown ends the server but keeps its cluster for Run: SIGINT for a fast shutdown, SIGQUIT for an
// immediate one.
func (s *Server) Shutdown(sig syscall.Signal) error {
	if err := s.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-s.done:
		return nil
	case <-time.After(startTimeout):
	}
	err := fmt.Errorf("postgres did not stop within %s and was killed%s", startTimeout, s.remaining())
	// An immediate shutdown kills the server's own processes, too, if they do not end.
	_ = s.cmd.Process.Signal(syscall.SIGQUIT)
	select {
	case <-s.done:
	case <-time.After(quitTimeout):
		_ = s.cmd.Process.Kill()
		<-s.done
	}
	return err
}

// remaining says which processes the server has, as far as ps can tell.
func (s *Server) remaining() string {
	out, err := exec.Command("ps", "-o", "pid,stat,wchan:20,args", "--ppid", strconv.Itoa(s.cmd.Process.Pid)).Output()
	if err != nil {
		return ""
	}
	return "; its processes:\n" + string(out)
}

// Stop ends the server and removes its cluster.
func (s *Server) Stop() error {
	err := s.Shutdown(syscall.SIGINT)
	return errors.Join(err, os.RemoveAll(s.dir))
}

// AsOwner lets cmd run as the user as whom servers run, and gives that user a folder: for programs that refuse to run as
// root, as PostgreSQL does.
func AsOwner(cmd *exec.Cmd, dir string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	owner, err := unprivileged()
	if err != nil {
		return err
	}
	cmd.SysProcAttr = attributes(owner, 0)
	return os.Chown(dir, int(owner.Uid), int(owner.Gid))
}

// unprivileged returns the user to run as when we are root, as whom PostgreSQL refuses to run.
func unprivileged() (*syscall.Credential, error) {
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err1 == nil && err2 == nil {
			return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
		}
	}
	return nil, errors.New("postgres refuses to run as root, and there is neither a user postgres nor nobody: run this as an ordinary user")
}

// makeDir makes the server's folder in the user's cache, or in the folder for temporary files where the
// cache cannot serve: when the server's user cannot reach it, or a socket's address would be too long.
func makeDir(chosen string, owner *syscall.Credential) (string, error) {
	parent := os.TempDir()
	if chosen != "" {
		parent = chosen
	} else if cache, err := os.UserCacheDir(); err == nil {
		cache = filepath.Join(cache, "memhook")
		if len(cache) <= maxSocketPath && os.MkdirAll(cache, 0o755) == nil && (owner == nil || reachable(cache)) {
			parent = cache
		}
	}
	removeStale(parent)
	dir, err := os.MkdirTemp(parent, "memhook-pg-")
	if err != nil {
		return "", fmt.Errorf("make a folder for PostgreSQL: %w", err)
	}
	if owner != nil {
		if err := os.Chown(dir, int(owner.Uid), int(owner.Gid)); err != nil {
			return "", fmt.Errorf("make a folder for PostgreSQL: %w", err)
		}
	}
	return dir, nil
}

// reachable reports whether everybody may enter all folders down to dir.
func reachable(dir string) bool {
	for ; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil || info.Mode()&0o001 == 0 {
			return false
		}
		if dir == filepath.Dir(dir) {
			return true
		}
	}
}

// removeStale removes what a server left whose program was killed.
func removeStale(parent string) {
	dirs, _ := filepath.Glob(filepath.Join(parent, "memhook-pg-*"))
	for _, dir := range dirs {
		info, err := os.Stat(dir)
		if err != nil || time.Since(info.ModTime()) < time.Minute {
			continue // perhaps one that is just being made
		}
		content, err := os.ReadFile(filepath.Join(dir, "data", "postmaster.pid"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			continue // somebody else's
		}
		line, _, _ := strings.Cut(string(content), "\n")
		if pid, err := strconv.Atoi(strings.TrimSpace(line)); err == nil && syscall.Kill(pid, 0) != syscall.ESRCH {
			continue
		}
		_ = os.RemoveAll(dir)
	}
}

// find returns the folder of PostgreSQL's programs, downloading them as the last resort.
func find() (string, error) {
	for _, dir := range candidates() {
		if complete(dir) {
			return dir, nil
		}
	}
	dir, err := download()
	if err != nil {
		return "", fmt.Errorf("PostgreSQL is not installed: install it (Debian: apt-get install postgresql, "+
			"Red Hat: dnf install postgresql-server, Homebrew: brew install postgresql); a download failed: %w", err)
	}
	return dir, nil
}

// Program returns the path of one of PostgreSQL's programs, such as pg_dump.
func Program(name string) (string, error) {
	for _, dir := range candidates() {
		if info, err := os.Stat(filepath.Join(dir, name)); err == nil && !info.IsDir() {
			return filepath.Join(dir, name), nil
		}
	}
	return "", fmt.Errorf("PostgreSQL's %s is not installed", name)
}

func complete(dir string) bool {
	for _, program := range []string{"initdb", "postgres"} {
		if info, err := os.Stat(filepath.Join(dir, program)); err != nil || info.IsDir() {
			return false
		}
	}
	return true
}

// candidates lists where the programs may be: the PATH, where pg_config says, and the usual folders of
// Debian, Red Hat and Homebrew, the newest version first.
func candidates() []string {
	if dir := os.Getenv("MEMHOOK_POSTGRES"); dir != "" {
		return []string{dir} // of that version and no other
	}
	dirs := filepath.SplitList(os.Getenv("PATH"))
	if out, err := exec.Command("pg_config", "--bindir").Output(); err == nil {
		dirs = append(dirs, strings.TrimSpace(string(out)))
	}
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql*/bin", "/usr/local/opt/postgresql*/bin",
	} {
		found, _ := filepath.Glob(pattern)
		slices.Reverse(found)
		dirs = append(dirs, found...)
	}
	return dirs
}

// download fetches PostgreSQL's programs into the cache, once.
func download() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "memhook", "postgresql")
	if complete(filepath.Join(dir, "bin")) {
		return filepath.Join(dir, "bin"), nil
	}
	fmt.Fprintln(os.Stderr, "PostgreSQL is not installed; downloading its programs to", dir)
	runtimeDir, err := os.MkdirTemp(filepath.Dir(dir), "download-")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(runtimeDir) }()
	// Its Start unpacks the programs first. That it can start a server is not needed, nor possible as root.
	db := embeddedpostgres.NewDatabase(embeddedpostgres.DefaultConfig().
		BinariesPath(dir).RuntimePath(runtimeDir).CachePath(runtimeDir).Logger(&bytes.Buffer{}))
	if err = db.Start(); err == nil {
		err = db.Stop()
	}
	if !complete(filepath.Join(dir, "bin")) {
		return "", errors.Join(errors.New("the programs are not there"), err)
	}
	return filepath.Join(dir, "bin"), nil
}
