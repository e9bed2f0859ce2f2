package verify

import (
	"context"

	"hufu/verify/path"
)

// PathRequest asks whether any certificate, of whatever CA, may be relied on.
type PathRequest = path.Request

// PathAnswer says so, or gives the reason why not.
type PathAnswer = path.Answer

// Path answers by RFC 5280, Sections 6.1 and 6.3, from what the request holds alone.
// A Verifier judges what Hufu's own services are shown, by stricter rules; Path is
// for everybody else's certificates.
func Path(ctx context.Context, r *PathRequest) PathAnswer { return path.Validate(ctx, r) }
