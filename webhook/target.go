package webhook

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/net/idna"
)

// MaxURLLength is the most characters of a callback URL in its normal form.
const MaxURLLength = 2048

// Target is a callback URL in its normal form: URLs that mean the same request are equal. The scheme and the host are in
// lower case, the host is in ASCII (an internationalized name in Punycode) without a dot at its end or an address as it
// is usually written, the port is left out if it is the scheme's, dot segments of the path are resolved, and what RFC
// 3986 does not permit in a path or a query is percent-encoded. What is percent-encoded already stays as it is.
type Target struct {
	scheme, host, path, query string
	port                      uint16
}

// String returns the whole URL, as it is stored, shown and requested.
func (t Target) String() string {
	if t.query == "" {
		return t.Endpoint()
	}
	return t.Endpoint() + "?" + t.query
}

// Endpoint returns the URL without its query, which names the receiver.
func (t Target) Endpoint() string { return t.scheme + "://" + t.authority() + t.path }

// Query returns what follows the question mark; "" for none. It belongs to a subscription, not to the receiver.
func (t Target) Query() string { return t.query }

func (t Target) authority() string {
	switch {
	case t.port != defaultPorts[t.scheme]:
		return net.JoinHostPort(t.host, strconv.Itoa(int(t.port)))
	case strings.Contains(t.host, ":"):
		return "[" + t.host + "]"
	default:
		return t.host
	}
}

// below reports whether a target is at or below a URL. Both schemes' default ports count as one, since the one usually
// leads to the other.
func (t Target) below(base Target) bool {
	special := func(u Target) bool { return u.port != defaultPorts[u.scheme] }
	if t.host != base.host || t.port != base.port && (special(t) || special(base)) {
		return false
	}
	prefix := strings.TrimSuffix(base.path, "/")
	return t.path == prefix || strings.HasPrefix(t.path, prefix+"/")
}

var defaultPorts = map[string]uint16{"http": 80, "https": 443}

// ParseTarget returns the normal form of a callback URL. Its errors describe what the URL must be. It says nothing of whether
// webhooks may go there: see [Guard.Target].
func ParseTarget(raw string) (Target, error) {
	if len(raw) > MaxURLLength {
		return Target{}, fmt.Errorf("must have at most %d characters", MaxURLLength)
	}
	if strings.ContainsFunc(raw, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '\\' }) {
		return Target{}, errors.New("must not contain spaces, control characters or backslashes")
	}
	u, err := url.Parse(raw)
	_, rest, absolute := strings.Cut(raw, "://")
	switch {
	case err != nil && errors.As(err, new(url.EscapeError)):
		return Target{}, errEscape
	case err != nil && strings.Contains(err.Error(), "invalid port"):
		return Target{}, errPort
	case err != nil:
		return Target{}, errors.New("must be a URL such as https://example.com/hooks")
	case !absolute || defaultPorts[u.Scheme] == 0:
		return Target{}, errors.New("must begin with https:// and a host, such as https://example.com/hooks")
	case u.Opaque != "" || u.Hostname() == "":
		return Target{}, errors.New("must have a host after https://, such as https://example.com/hooks")
	case u.User != nil:
		return Target{}, errors.New("must not contain a user name or password; an endpoint's headers can hold credentials")
	case strings.Contains(raw, "#"):
		return Target{}, errors.New("must not contain a fragment (#), which is never sent; %23 is the character itself")
	}
	t := Target{scheme: u.Scheme}
	if t.port, err = parsePort(u); err != nil {
		return Target{}, err
	}
	if t.host, err = normalHost(u.Hostname()); err != nil {
		return Target{}, err
	}
	// The path and the query are taken from the text: url.URL decodes the path, and %2F is not a slash.
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		t.path, t.query, _ = strings.Cut(rest[i:], "?")
	}
	if !escapedRight(t.query) {
		return Target{}, errEscape
	}
	t.path, t.query = encode(withoutDots(t.path), "/:@"), encode(t.query, "/:@?")
	if len(t.String()) > MaxURLLength {
		return Target{}, fmt.Errorf("must have at most %d characters when it is percent-encoded", MaxURLLength)
	}
	return t, nil
}

var errPort = errors.New("must have a number from 1 to 65535 as its port")

var errEscape = errors.New("must have two hexadecimal digits after each %, which itself is written %25")

func parsePort(u *url.URL) (uint16, error) {
	if strings.HasSuffix(u.Host, ":") {
		return 0, errors.New("must not end its host with a colon")
	}
	if u.Port() == "" {
		return defaultPorts[u.Scheme], nil
	}
	n, err := strconv.ParseUint(u.Port(), 10, 16)
	if err != nil || n == 0 {
		return 0, errPort
	}
	return uint16(n), nil
}

// names maps internationalized host names as browsers do. Labels may hold what DNS permits but RFC 1034 does not, such as
// underscores; see [checkLabels].
var names = idna.New(idna.MapForLookup(), idna.BidiRule(), idna.CheckHyphens(false), idna.StrictDomainName(false))

// normalHost returns an address in its usual notation or a name in ASCII.
func normalHost(host string) (string, error) {
	if strings.Contains(host, ":") { // IPv6, which stood in brackets
		ip, err := netip.ParseAddr(host)
		if err != nil || ip.Zone() != "" {
			return "", errors.New("must have an IPv6 address without a zone between its brackets")
		}
		return ip.Unmap().String(), nil
	}
	name := host
	if !plainName(host) {
		mapped, err := names.ToASCII(host)
		if err == nil { // what was mapped must be permitted itself, which idna does not always check
			name, err = names.ToASCII(mapped)
		}
		if err != nil {
			return "", errors.New("must have a host name that DNS permits")
		}
	}
	name = strings.TrimSuffix(strings.ToLower(name), ".")
	if err := checkLabels(name); err != nil {
		return "", err
	}
	return name, nil
}

// plainName reports whether a name is one that idna changes nothing of. Most are, and mapping takes as long as all the rest of
// reading a URL.
func plainName(host string) bool {
	for _, c := range []byte(host) {
		if ('a' > c || c > 'z') && ('0' > c || c > '9') && c != '.' && c != '-' && c != '_' {
			return false
		}
	}
	return !strings.Contains(host, "xn--")
}

// checkLabels reports whether DNS permits a name, and refuses numbers that some resolvers read as addresses: decimal, octal
// and hexadecimal notation, fewer than four parts.
func checkLabels(name string) error {
	if _, err := netip.ParseAddr(name); err == nil {
		return nil
	}
	if len(name) > 253 {
		return errors.New("must have a host name of at most 253 characters")
	}
	last := ""
	for last = range strings.SplitSeq(name, ".") {
		if last == "" || len(last) > 63 || strings.Trim(last, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return errors.New("must have a host name of letters, digits, hyphens and dots, at most 63 characters between two dots")
		}
	}
	if strings.Trim(last, "0123456789") == "" || strings.HasPrefix(last, "0x") && strings.Trim(last[2:], "0123456789abcdef") == "" {
		return fmt.Errorf("%w: an IP address must have its usual notation, such as 203.0.113.7", ErrForbidden)
	}
	return nil
}

// withoutDots resolves the dot segments of a path (RFC 3986, 5.2.4), percent-encoded ones too, as browsers do.
func withoutDots(path string) string {
	var out []string
	segments := strings.Split(strings.TrimPrefix(path, "/"), "/")
	for i, s := range segments {
		last := i == len(segments)-1
		switch strings.ReplaceAll(strings.ToLower(s), "%2e", ".") {
		case "..":
			out = out[:max(0, len(out)-1)]
		case ".":
		default:
			out = append(out, s)
			continue
		}
		if last {
			out = append(out, "") // what a dot segment names is a folder
		}
	}
	return "/" + strings.Join(out, "/")
}

// encode percent-encodes each byte that is neither unreserved nor a sub-delimiter of RFC 3986 nor one of more. A percent
// sign stays: what follows it was encoded already.
func encode(s, more string) string {
	var out strings.Builder
	for _, b := range []byte(s) {
		if 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || '0' <= b && b <= '9' ||
			strings.IndexByte("-._~!$&'()*+,;=%", b) >= 0 || strings.IndexByte(more, b) >= 0 {
			out.WriteByte(b)
		} else {
			fmt.Fprintf(&out, "%%%02X", b)
		}
	}
	return out.String()
}

// escapedRight reports whether two hexadecimal digits follow each percent sign.
func escapedRight(s string) bool {
	_, err := url.PathUnescape(s)
	return err == nil
}
