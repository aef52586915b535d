package api

import (
	"context"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// A portal's link lasts standardPortal by default.
const standardPortal, leastPortal, mostPortal = time.Hour, time.Minute, 7 * 24 * time.Hour

type (
	// NewPortalLink asks for a link to an endpoint's portal.
	NewPortalLink struct {
		ExpiresIn string `json:"expires_in,omitempty" example:"1h" doc:"How long the link works, from 1m to 168h: 1h by default."`
	}
	// PortalLink opens an endpoint's portal.
	PortalLink struct {
		URL       string `json:"url" format:"uri" doc:"Whoever has it can see and do what the portal offers: give it to your customer alone."`
		ExpiresAt Time   `json:"expires_at" doc:"When the link, and what it has opened, stops working."`
	}
	portalInput struct {
		IDInput
		Body    *NewPortalLink `required:"false"`
		request huma.Context
	}
)

// Resolve keeps the request, which says where it was sent to.
func (in *portalInput) Resolve(ctx huma.Context) []error {
	in.request = ctx
	return nil
}

func (s *server) createPortal(ctx context.Context, in *portalInput) (*body[PortalLink], error) {
	lasts, err := optionalDuration("expires_in", orZero(in.Body).ExpiresIn, standardPortal, leastPortal, mostPortal)
	if err != nil {
		return nil, err
	}
	token, expires, err := s.store.CreatePortal(ctx, callerOf(ctx).Identity, in.id, lasts)
	if err != nil {
		return nil, err
	}
	url := s.base(in.request) + "/portal/" + in.id.String() + "?token=" + token
	return &body[PortalLink]{PortalLink{URL: url, ExpiresAt: wireTime(expires)}}, nil
}

// base returns the URL of this service as its users know it: the public one, or else where the request was sent.
func (s *server) base(request huma.Context) string {
	switch {
	case s.cfg.PublicURL != "":
		return s.cfg.PublicURL
	case s.secure(request.TLS() != nil, request.RemoteAddr(), request.Header(headerForwardedProto)):
		return "https://" + request.Host()
	default:
		return "http://" + request.Host()
	}
}
