package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"hufu/api/client"
	"hufu/ca"
	"hufu/officers"
	"hufu/policy"
	"hufu/readers"
	"hufu/store"
	"hufu/topup"
	"hufu/verify"
)

// kind is a sort of problem. Its name is stable: programs tell problems apart by
// it, and /problems/NAME serves its text.
type kind struct {
	Name   string
	Status int
	Title  string
	Remedy string // where the problem itself brings none
}

var (
	kindMalformed     = &kind{"malformed", 400, "The request is malformed", "Correct the request; /openapi.json tells what this route takes."}
	kindNoKey         = &kind{"idempotency-key-missing", 400, "The idempotency key is missing", "Send a header Idempotency-Key with a value that is new for each new act, and the same when you ask again for a lost answer."}
	kindRequest       = &kind{"bad-request", 400, "The certificate request is not acceptable", "Make a new request with the tool that made the key."}
	kindNoCertificate = &kind{"certificate-required", 401, "A client certificate is required", "Connect with TLS and a certificate that this hierarchy issued."}
	kindCaller        = &kind{"caller-refused", 403, "The caller is not accepted", "Ask a CA admin to register your certificate, or to give you a new one."}
	kindForbidden     = &kind{"forbidden", 403, "The caller may not do this", "Ask somebody whose role allows it in that city."}
	kindViolation     = &kind{"violation", 403, "A rule of policy is broken", "Ask for what the rule allows; the citation tells where it comes from."}
	kindApproval      = &kind{"approval", 403, "The approval does not hold", "Have another person sign exactly the bytes of the request, before it expires."}
	kindNotFound      = &kind{"not-found", 404, "There is no such thing", "Check the name; a list route shows what there is."}
	kindNoRoute       = &kind{"no-route", 404, "There is no such route", "/openapi.json lists the routes."}
	kindMethod        = &kind{"method-not-allowed", 405, "The route does not take this method", "The header Allow lists the methods that it takes."}
	kindState         = &kind{"wrong-state", 409, "The present state does not allow this", "Look at the present state first."}
	kindExists        = &kind{"exists", 409, "It exists already", "Use what exists, or choose another name."}
	kindKeyTaken      = &kind{"key-taken", 409, "The public key belongs to another certificate line", "Make a new key pair, or renew the line that holds the key."}
	kindList          = &kind{"list-refused", 400, "The CRL is not acceptable", "Have the CA sign a new list."}
	kindCA            = &kind{"ca-unavailable", 409, "The CA cannot do this here", "Ask the node that holds the CA's key, or another CA."}
	kindTooLarge      = &kind{"too-large", 413, "The body is too large", "Send less at once."}
	kindMediaType     = &kind{"media-type", 415, "The content type is not taken here", "Send the body with the content type that the detail names."}
	kindKeyReused     = &kind{"idempotency-key-reused", 422, "The idempotency key was used for another request", "Use a new key for a new request."}
	kindRate          = &kind{"too-many-requests", 429, "Too many requests", "Wait, then ask again with a certificate that is accepted."}
	kindInternal      = &kind{"internal", 500, "Internal error", "Ask again; if it stays so, give the operator the instance, which names the request in the node's log."}
	kindUnavailable   = &kind{"unavailable", 503, "The node cannot do this now", "Ask again in a moment."}

	kindPerson   = &kind{"officer-refused", 409, "The officer cannot be recorded so", "Bring a good certificate of this book that fits the roles."}
	kindProfile  = &kind{"unknown-profile", 400, "There is no such profile", "Ask for one of the profiles that the detail lists."}
	kindPlan     = &kind{"plan-refused", 409, "The plan does not hold", "Make a new plan: GET /v1/mass/plan."}
	kindCentre   = &kind{"no-centre", 409, "The node has no key management centre", "Ask the node of the centre that keeps the keys, or give this one a section escrow in its configuration."}
	kindRecovery = &kind{"recovery-refused", 409, "The key is not recovered", "Ask for a new approval, with a good certificate of profile recipient."}
	kindManifest = &kind{"manifest-faulty", 422, "The manifest has faults, and nothing of it was taken", "Have the maker put right what the faults name, and send the whole file again."}
	kindStage1   = &kind{"stage1-refused", 409, "The first stage does not allow this", "Look at the model, the manifest or the ticket that the detail names."}
	kindPair     = &kind{"reader-pair", 409, "A reader's certificates go as a pair", "Use the routes below /v1/readers, which change both at once."}

	kindMisfit         = &kind{"misfit", 403, "The tally does not fit", "The message must be signed by a certificate that is good for it; the detail tells what does not fit."}
	kindMessage        = &kind{"message-malformed", 400, "The message is malformed", "Send the CMS SignedData in DER that the reader made."}
	kindRevoked        = &kind{"certificate-revoked", 403, "The certificate is revoked", "The holder needs a new certificate."}
	kindHeld           = &kind{"certificate-on-hold", 403, "The certificate is on hold", "Resume it, once its holder has it back."}
	kindStale          = &kind{"status-stale", 503, "The status of a certificate could not be told", "Ask again when the source of the status answers."}
	kindLoad           = &kind{"load-conflict", 409, "The ledger does not allow this", "Look at the transaction that the detail names; confirm or resolve it, or begin anew at the card."}
	kindSigner         = &kind{"city-cannot-sign", 409, "The city cannot sign permissions", "Issue the city a certificate of profile city-sign, and give its key to the node."}
	kindMessageExpired = &kind{"message-expired", 403, "The message is past its time", "Let the reader sign a new one."}
)

// kinds lists every sort of problem, for the pages and the document.
var kinds = append([]*kind{
	kindMalformed, kindNoKey, kindRequest, kindProfile, kindMessage, kindNoCertificate, kindCaller, kindForbidden, kindViolation, kindApproval,
	kindMisfit, kindRevoked, kindHeld, kindMessageExpired, kindNotFound, kindNoRoute, kindMethod, kindState, kindExists, kindKeyTaken, kindPair, kindPlan, kindManifest, kindStage1, kindCentre, kindRecovery, kindPerson,
	kindLoad, kindSigner, kindCA, kindList, kindTooLarge, kindMediaType, kindKeyReused, kindRate, kindInternal, kindUnavailable, kindStale,
}, stage2KindList()...)

// problemf makes a problem of a kind.
func problemf(k *kind, format string, args ...any) *client.Problem {
	return &client.Problem{Type: "/problems/" + k.Name, Title: k.Title, Status: k.Status, Detail: fmt.Sprintf(format, args...), Remedy: k.Remedy}
}

// problem is the one place that turns an error into what the caller is told.
// What it does not know is an internal error, whose text is for the log.
func (s *Server) problem(err error) *client.Problem {
	var (
		told      *client.Problem
		denied    *policy.Denied
		violation *policy.Violation
		misfit    verify.Misfit
		signer    *topup.SignerError
	)
	switch {
	case errors.As(err, &told):
		p := *told
		return &p
	case errors.As(err, &denied):
		return problemf(kindForbidden, "%s", denied)
	case errors.As(err, &violation):
		k := kindViolation
		if strings.HasPrefix(violation.Rule, "csr-") {
			k = kindRequest // what is broken is the request itself, not what it asks for
		}
		p := problemf(k, "%s", violation.Detail)
		p.Rule, p.Citation = violation.Rule, violation.Citation
		return p
	case errors.As(err, &signer): // before what made it so, which is no fault of the request
		return problemf(kindSigner, "%s", signer)
	case errors.As(err, &misfit):
		return misfitProblem(misfit)
	}
	for _, of := range []func(error) *client.Problem{caProblem, peopleProblem, centreProblem, stage2Problem, readerProblem, stage1Problem} {
		if p := of(err); p != nil {
			return p
		}
	}
	switch {
	case errors.Is(err, store.ErrNotFound):
		return problemf(kindNotFound, "%s", err)
	case errors.Is(err, store.ErrConflict):
		return problemf(kindState, "%s", err)
	case errors.Is(err, store.ErrExists):
		return problemf(kindExists, "%s", err)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled), errors.Is(err, store.ErrClosed):
		return problemf(kindUnavailable, "the work was not done in the time that there was")
	case errors.Is(err, store.ErrFailed):
		return remedied(kindUnavailable, "Ask again once an operator has seen to the node's disk and started it again.", "the book cannot be written any more, and the node stops")
	}
	return problemf(kindInternal, "something went wrong inside the node")
}

// caProblem tells the spine's refusals.
func caProblem(err error) *client.Problem {
	var (
		request *ca.RequestError
		taken   *ca.KeyTakenError
		reused  *ca.IdempotencyError
		state   *ca.StateError
		reason  *ca.ReasonError
		absent  *ca.CAError
		list    *ca.ListError
	)
	switch {
	case errors.As(err, &request):
		return remedied(kindRequest, request.Remedy, "%s: %s", request.Problem, request.Detail)
	case errors.As(err, &taken):
		return problemf(kindKeyTaken, "%s", taken)
	case errors.As(err, &reused):
		return problemf(kindKeyReused, "%s", reused)
	case errors.As(err, &state):
		return problemf(kindState, "%s", state)
	case errors.As(err, &reason):
		return problemf(kindMalformed, "%s", reason)
	case errors.As(err, &list):
		return remedied(kindList, list.Remedy, "%s", list.Detail)
	case errors.As(err, &absent):
		return remedied(kindCA, absent.Remedy, "CA %q: %s", absent.CA, absent.Detail)
	}
	return nil
}

// peopleProblem tells the office's refusals.
func peopleProblem(err error) *client.Problem {
	var (
		caller   *officers.CallerError
		approval *officers.ApprovalError
		person   *officers.PersonError
	)
	switch {
	case errors.As(err, &caller):
		return problemf(kindCaller, "%s", caller)
	case errors.As(err, &approval):
		return remedied(kindApproval, approval.Remedy, "approval %s (%s): %s", approval.ID, approval.Problem, approval.Detail)
	case errors.As(err, &person):
		return remedied(kindPerson, person.Remedy, "%q: %s", person.Name, person.Detail)
	}
	return nil
}

// readerProblem tells the register's refusals.
func readerProblem(err error) *client.Problem {
	var (
		taken *readers.TakenError
		pair  *readers.PairError
		state *readers.StateError
		plan  *readers.PlanError
	)
	switch {
	case errors.As(err, &taken):
		return problemf(kindExists, "%s", taken)
	case errors.As(err, &pair):
		return remedied(kindRequest, pair.Remedy, "reader %q: %s", pair.Number, pair.Detail)
	case errors.As(err, &state):
		p := problemf(kindState, "%s", state)
		p.Remedy = state.Remedy()
		return p
	case errors.As(err, &plan):
		return remedied(kindPlan, plan.Remedy, "%s", plan.Detail)
	}
	return nil
}

// remedied makes a problem that brings its own remedy.
func remedied(k *kind, remedy, format string, args ...any) *client.Problem {
	p := problemf(k, format, args...)
	p.Remedy = remedy
	return p
}

// misfitProblem tells which half of the tally did not fit, and names the kinds
// that a caller acts upon differently.
func misfitProblem(m verify.Misfit) *client.Problem {
	k := kindMisfit
	switch m.(type) {
	case *verify.SizeError:
		k = kindTooLarge
	case *verify.FormError:
		k = kindMessage
	case *verify.RevokedError:
		k = kindRevoked
	case *verify.HeldError:
		k = kindHeld
	case *verify.StaleError:
		k = kindStale
	case *verify.ExpiredError:
		k = kindMessageExpired
	case *topup.TermsError:
		k = kindMalformed
	case *topup.ReplayError, *topup.TakenError, *topup.SpentError, *topup.SupersededError, *topup.ClosedError, *topup.UnprovenError:
		k = kindLoad
	}
	p := problemf(k, "%s", m)
	p.Half = string(m.Half())
	return p
}

// problemAnswer is the answer for an error.
func (s *Server) problemAnswer(c *call, err error) *answer {
	p := s.problem(err)
	p.Instance = c.id
	if p.Status == http.StatusTooManyRequests || p.Status == http.StatusServiceUnavailable {
		c.w.Header().Set("Retry-After", "1")
	}
	body, err := json.Marshal(p)
	if err != nil {
		body = []byte("{}")
	}
	return &answer{status: p.Status, media: client.MediaProblem, body: body}
}
