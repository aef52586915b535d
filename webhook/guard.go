package webhook

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"

	"code.dny.dev/ssrf"
)

// ErrForbidden is returned for a callback URL whose target the policy forbids.
var ErrForbidden = errors.New("not permitted")

// Policy is the set of targets that webhooks may reach.
type Policy struct {
	AllowHTTP bool           // http:// beside https://
	Networks  []netip.Prefix // special-purpose networks that may be reached all the same
	DenyPorts []uint16
	// Self is where memhook is reached from outside, nil where that is not known; Listener is its own address. Webhooks to
	// memhook could make it send webhooks.
	Self     *Target
	Listener netip.AddrPort
}

// Guard keeps webhooks away from the inside: every address is checked when it is dialled, after it was
// resolved, so that a name that changes its address gains nothing.
type Guard struct {
	policy Policy
	dial   *ssrf.Guardian
	local  []netip.Addr // this machine's, where memhook listens at all of them
}

// NewGuard makes a guard. Addresses in the special-purpose registries of IANA are refused unless the
// policy's networks hold them.
func NewGuard(p Policy) *Guard {
	var v4, v6 []netip.Prefix
	for _, network := range p.Networks {
		if network.Addr().Is4() {
			v4 = append(v4, network)
		} else {
			v6 = append(v6, network)
		}
	}
	var local []netip.Addr
	if p.Listener.IsValid() && p.Listener.Addr().IsUnspecified() {
		local = localAddresses()
	}
	dial := ssrf.New(ssrf.WithAnyPort(), ssrf.WithAllowedV4Prefixes(v4...), ssrf.WithAllowedV6Prefixes(v6...))
	return &Guard{policy: p, local: local, dial: dial}
}

// Control is the net.Dialer.Control that refuses forbidden addresses.
func (g *Guard) Control(network, address string, conn syscall.RawConn) error {
	err := g.allow(network, address, conn)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ssrf.ErrProhibitedIP):
		host, _, _ := net.SplitHostPort(address)
		return fmt.Errorf("%w: %s is not a public address; "+
			"the operator can permit its network with MEMHOOK_ALLOWED_CALLBACK_NETWORKS", ErrForbidden, host)
	default:
		return fmt.Errorf("%w: %w", ErrForbidden, err)
	}
}

func (g *Guard) allow(network, address string, conn syscall.RawConn) error {
	target, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	if slices.Contains(g.policy.DenyPorts, target.Port()) {
		return portDenied(target.Port())
	}
	if g.isListener(target) {
		return errors.New("it is memhook's own address")
	}
	// An IPv4-mapped IPv6 address is judged as the IPv4 address.
	if ip := target.Addr().WithZone(""); ip.Is4In6() {
		return g.dial.Safe("tcp4", netip.AddrPortFrom(ip.Unmap(), target.Port()).String(), conn)
	}
	return g.dial.Safe(network, address, conn)
}

func portDenied(port uint16) error {
	return fmt.Errorf("port %d is one of MEMHOOK_DENIED_CALLBACK_PORTS", port)
}

// isListener reports whether memhook itself listens at an address.
func (g *Guard) isListener(target netip.AddrPort) bool {
	own := g.policy.Listener
	if !own.IsValid() || own.Port() != target.Port() {
		return false
	}
	ip := target.Addr().Unmap().WithZone("")
	if own.Addr().IsUnspecified() {
		return ip.IsLoopback() || ip.IsUnspecified() || slices.Contains(g.local, ip)
	}
	return own.Addr().Unmap() == ip
}

func localAddresses() (out []netip.Addr) {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return nil // the names and addresses that are known otherwise are still refused
	}
	for _, a := range addresses {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			out = append(out, p.Addr().Unmap())
		}
	}
	return out
}

// Target returns the normal form of a callback URL that may be registered. Its error describes what is wrong with the URL;
// it is [ErrForbidden] if the URL is obviously bound for the inside, or for memhook itself. What a name resolves to is
// judged at every attempt.
func (g *Guard) Target(raw string) (Target, error) {
	t, err := ParseTarget(raw)
	if err == nil && t.scheme == "http" && !g.policy.AllowHTTP {
		err = errors.New("must begin with https://; the operator can permit http:// with MEMHOOK_ALLOW_HTTP_CALLBACKS")
	}
	if err == nil {
		err = g.check(t)
	}
	if errors.Is(err, ErrForbidden) {
		err = fmt.Errorf("is %w", err)
	}
	return t, err
}

// check judges what a target's text shows: a literal address, a name that means this machine, the port.
func (g *Guard) check(t Target) error {
	if self := g.policy.Self; self != nil && t.below(*self) {
		return fmt.Errorf("%w: it is memhook's own address", ErrForbidden)
	}
	host := t.host
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		host = "127.0.0.1"
	}
	network := "tcp4"
	ip, err := netip.ParseAddr(host)
	if err != nil {
		if slices.Contains(g.policy.DenyPorts, t.port) {
			return fmt.Errorf("%w: %w", ErrForbidden, portDenied(t.port))
		}
		return nil
	}
	if ip.Is6() {
		network = "tcp6"
	}
	return g.Control(network, netip.AddrPortFrom(ip, t.port).String(), nil)
}
