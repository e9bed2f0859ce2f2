package api

import (
	"net/http"
	"slices"
	"time"

	"hufu/api/client"
	"hufu/policy"
)

// routes is every door, in the order of the document.
var routes = slices.Concat(certificateRoutes, readerRoutes, stage1Routes, stage2Routes, caRoutes, journalRoutes, officerRoutes, escrowRoutes, topUpRoutes, verifyRoutes, nodeRoutes)

var certificateRoutes = []route{
	{
		Method: http.MethodPost, Path: "/v1/certificates", ID: "issueCertificate",
		Doc:       "Issues one certificate. Where the profile needs approvals and none is named, opens one and answers 202: the same request with its ID, once it is granted, issues.",
		Operation: policy.OpCertificateIssue, City: ofIssue, Write: true,
		Body: exampleIssue, Status: 201, Also: 202, Answer: client.Certificate{}, Location: true, Handle: (*Server).issue,
	},
	{
		Method: http.MethodGet, Path: "/v1/certificates", ID: "listCertificates",
		Doc:       "Lists certificates by one of their indexed fields; the others narrow. A page may hold fewer than its limit and still have a next.",
		Operation: policy.OpCertificateRead, City: ofQuery,
		Query: append([]param{
			{"serial", "string", "serial number"}, {"spki", "string", "SHA-256 of the SubjectPublicKeyInfo, hexadecimal"},
			{"reader", "string", "reader number"}, {"line", "string", "line of renewals"}, {"subject", "string", "subject, whole"},
			{"expires-before", "string", "RFC 3339 time"}, byCity, {"state", "string", "good, on-hold or revoked"}, {"ca", "string", "ID of the CA"},
		}, paging...),
		Status: 200, Answer: client.Page[client.Certificate]{}, Handle: (*Server).certificates,
	},
	{
		Method: http.MethodGet, Path: "/v1/certificates/{serial}", ID: "readCertificate", Doc: "Returns one certificate with its present status.",
		Operation: policy.OpCertificateRead, City: ofCertificate, Status: 200, Answer: client.Certificate{}, Handle: (*Server).certificate,
	},
	{
		Method: http.MethodPost, Path: "/v1/certificates/{serial}/suspend", ID: "suspendCertificate", Doc: "Puts a good certificate on hold.",
		Operation: policy.OpCertificateSuspend, City: ofCertificate, Write: true, Body: client.Note{}, Optional: true,
		Status: 200, Answer: client.Certificate{}, Handle: (*Server).suspend,
	},
	{
		Method: http.MethodPost, Path: "/v1/certificates/{serial}/resume", ID: "resumeCertificate", Doc: "Lifts a hold.",
		Operation: policy.OpCertificateResume, City: ofCertificate, Write: true, Body: client.Note{}, Optional: true,
		Status: 200, Answer: client.Certificate{}, Handle: (*Server).resume,
	},
	{
		Method: http.MethodPost, Path: "/v1/certificates/{serial}/revoke", ID: "revokeCertificate", Doc: "Ends a certificate for ever.",
		Operation: policy.OpCertificateRevoke, City: ofCertificate, Write: true, Body: client.Revocation{Reason: 1}, Optional: true,
		Status: 200, Answer: client.Certificate{}, Handle: (*Server).revoke,
	},
}

var readerRoutes = []route{
	{
		Method: http.MethodPost, Path: "/v1/readers", ID: "issueReader", Doc: "Issues the pair of certificates of a reader and makes the reader active.",
		Operation: policy.OpReaderIssue, City: ofPair, Write: true, Body: examplePair,
		Status: 201, Answer: client.Reader{}, Location: true, Handle: (*Server).issuePair,
	},
	{
		Method: http.MethodPost, Path: "/v1/readers/batch", ID: "issueReaders", Doc: "Starts a job that issues the pairs of many readers of one city.",
		Operation: policy.OpReaderIssue, City: ofBatch, Write: true, MaxBody: 32 << 20,
		Body:   client.BatchRequest{City: "330100", Readers: []client.PairRequest{examplePair}},
		Status: 202, Answer: client.Job{}, Location: true, Handle: (*Server).issueBatch,
	},
	{
		Method: http.MethodGet, Path: "/v1/readers", ID: "listReaders",
		Doc:       "Lists readers by the narrowest of what is asked for; the others narrow it. A page may hold fewer than its limit, or none, and still have a next.",
		Operation: policy.OpReaderRead, City: ofQuery,
		Query: append([]param{
			byCity, {"state", "string", "state of a reader's life"}, {"number", "string", "how the number begins"},
			{"model", "string", "the maker's model"}, {"firmware", "string", "the firmware's version"}, {"batch", "string", "ID of the maker's manifest"},
			{"customer", "string", "the customer's word"}, {"ticket", "string", "ID of the ticket"},
			{"expires-before", "string", "RFC 3339 time: the pair of a reader whose life is not over ends before"},
		}, paging...),
		Status: 200, Answer: client.Page[client.Reader]{}, Handle: (*Server).readers,
	},
	{
		Method: http.MethodGet, Path: "/v1/readers/{number}", ID: "readReader", Doc: "Returns one reader with its pair and its history.",
		Operation: policy.OpReaderRead, City: ofReader, Status: 200, Answer: client.Reader{}, Handle: (*Server).reader,
	},
	{
		Method: http.MethodPost, Path: "/v1/readers/{number}/suspend", ID: "suspendReader", Doc: "Puts a reader, and both its certificates, on hold.",
		Operation: policy.OpReaderSuspend, City: ofReader, Write: true, Body: client.Note{Note: "reported lost by phone"}, Optional: true,
		Status: 200, Answer: client.Reader{}, Handle: (*Server).suspendReader,
	},
	{
		Method: http.MethodPost, Path: "/v1/readers/{number}/resume", ID: "resumeReader", Doc: "Lifts a reader's hold.",
		Operation: policy.OpReaderResume, City: ofReader, Write: true, Body: client.Note{Note: "found again"}, Optional: true,
		Status: 200, Answer: client.Reader{}, Handle: (*Server).resumeReader,
	},
	{
		Method: http.MethodPost, Path: "/v1/readers/{number}/revoke", ID: "revokeReader", Doc: "Ends a reader, and both its certificates, for ever.",
		Operation: policy.OpReaderRevoke, City: ofReader, Write: true, Body: client.Revocation{Reason: 1, Note: "stolen"}, Optional: true,
		Status: 200, Answer: client.Reader{}, Handle: (*Server).revokeReader,
	},
	{
		Method: http.MethodPost, Path: "/v1/readers/{number}/bind", ID: "bindReader", Doc: "Binds a reader to a customer, or releases it.",
		Operation: policy.OpReaderBind, City: ofReader, Write: true, Body: client.Binding{Customer: "c-000017"},
		Status: 200, Answer: client.Reader{}, Handle: (*Server).bindReader,
	},
	{
		Method: http.MethodPost, Path: "/v1/readers/{number}/replace", ID: "replaceReader",
		Doc:       "Ends a reader and gives its customer to another reader of the same city, which is active.",
		Operation: policy.OpReaderReplace, City: ofReader, Write: true, Body: client.Replacement{By: "1000002", Note: "broken"},
		Status: 200, Answer: client.Reader{}, Handle: (*Server).replaceReader,
	},
	{
		Method: http.MethodPost, Path: "/v1/readers/{number}/retire", ID: "retireReader", Doc: "Ends a reader that nothing replaces, and all its certificates.",
		Operation: policy.OpReaderRetire, City: ofReader, Write: true, Body: client.Note{Note: "given back"}, Optional: true,
		Status: 200, Answer: client.Reader{}, Handle: (*Server).retireReader,
	},
	{
		Method: http.MethodGet, Path: "/v1/mass/plan", ID: "planMass",
		Doc:       "Looks at what it would do to suspend, resume or revoke all readers of a city, a model, a firmware or a batch, and changes nothing.",
		Operation: policy.OpReaderMass, City: ofQuery,
		Query: []param{
			{"action", "string", "suspend, resume or revoke"}, byCity, {"model", "string", "the maker's model"}, {"firmware", "string", "the firmware's version"},
			{"batch", "string", "ID of the maker's manifest"}, {"reason", "integer", "CRL reason code of a revocation"}, {"note", "string", "a few words for the history"},
		},
		Status: 200, Answer: client.MassPlan{}, Handle: (*Server).planMass,
	},
	{
		Method: http.MethodPost, Path: "/v1/mass/approvals", ID: "requestMass", Doc: "Opens the approval of a plan that changes more readers than one person may.",
		Operation: policy.OpReaderMass, City: ofPlan, Write: true, Body: examplePlan, Status: 202, Answer: client.Approval{}, Location: true, Handle: (*Server).requestMass,
	},
	{
		Method: http.MethodPost, Path: "/v1/mass", ID: "runMass",
		Doc:       "Starts a job that does a plan, with the approval that it needs. Readers that changed their state since the plan was made are left alone and named.",
		Operation: policy.OpReaderMass, City: ofMass, Write: true, Body: client.MassRequest{Plan: examplePlan},
		Status: 202, Answer: client.Job{}, Location: true, Handle: (*Server).runMass,
	},
}

var caRoutes = []route{
	{
		Method: http.MethodGet, Path: "/v1/cas", ID: "listCAs", Doc: "Lists every generation of every CA of the book.",
		Operation: policy.OpCARead, City: noCity, Query: paging, Status: 200, Answer: client.Page[client.CA]{}, Handle: (*Server).cas,
	},
	{
		Method: http.MethodGet, Path: "/v1/cas/{id}", ID: "readCA", Doc: "Returns one CA with its chain and its newest CRL's record.",
		Operation: policy.OpCARead, City: noCity, Status: 200, Answer: client.CA{}, Handle: (*Server).ca,
	},
	{
		Method: http.MethodPost, Path: "/v1/cas/{id}/crl", ID: "publishCRL", Doc: "Signs and records the CRL of a CA anew, with those of its shards and the deltas to them.",
		Operation: policy.OpCRLPublish, City: ofCA, Write: true, Status: 201, Answer: client.CRL{}, Handle: (*Server).publishCRL,
	},
	{
		Method: http.MethodPost, Path: "/v1/cas/{id}/crl/import", ID: "importCRL",
		Doc:       "Records the CRL of a CA whose key the node does not hold, such as the root's. The list must be the CA's, hold now, and have a higher number than the one before.",
		Operation: policy.OpCRLPublish, City: ofCA, Write: true, Body: client.CRLImport{CRL: exampleDER}, MaxBody: 8 << 20,
		Status: 201, Answer: client.CRL{}, Handle: (*Server).importCRL,
	},
	{
		Method: http.MethodGet, Path: "/v1/crls", ID: "listCRLs", Doc: "Lists the newest CRL of each kind: of every CA, of each of its shards, and the deltas to them.",
		Operation: policy.OpCARead, City: noCity, Status: 200, Answer: client.Page[client.CRL]{}, Handle: (*Server).crls,
	},
	{
		Method: http.MethodGet, Path: "/v1/cas/{id}/standings", ID: "readStandings",
		Doc:       "Streams, as one view of the book, one line for every certificate of the CA that is on hold or revoked, or was on hold and is good again: what its CRLs have to say. Each line is a Standing in JSON.",
		Operation: policy.OpCertificateRead, City: ofCA, Status: 200, Media: client.MediaLines, Handle: (*Server).standings,
	},
	{
		Method: http.MethodGet, Path: "/v1/directories", ID: "listDirectories", Doc: "Tells how far each directory has followed the journal.",
		Operation: policy.OpDirectoryRead, City: noCity, Status: 200, Answer: client.Page[client.Directory]{}, Handle: (*Server).directories,
	},
	{
		Method: http.MethodPost, Path: "/v1/directories/{name}/diff", ID: "diffDirectory",
		Doc:       "Starts a job that compares a directory with the book at its own watermark. Its one item's result is a DirectoryDiff.",
		Operation: policy.OpCheck, City: noCity, Write: true, Status: 202, Answer: client.Job{}, Location: true, Handle: (*Server).diffDirectory,
	},
	{
		Method: http.MethodPost, Path: "/v1/directories/{name}/repair", ID: "repairDirectory",
		Doc:       "Starts a job that compares a directory with the book and puts right what differs. Its one item's result is a DirectoryDiff.",
		Operation: policy.OpDirectoryRepair, City: noCity, Write: true, Status: 202, Answer: client.Job{}, Location: true, Handle: (*Server).repairDirectory,
	},
	{
		Method: http.MethodGet, Path: "/v1/directories/reach/{serial}", ID: "readReach",
		Doc:       "Reads back what every directory, and the responder and the CRL that a certificate names, say of it. With wait, asks again those that do not say what the book says.",
		Operation: policy.OpCertificateRead, City: ofCertificate, Query: []param{{"wait", "string", "how long to ask again, such as 10s"}},
		Status: 200, Answer: client.Reach{}, Handle: (*Server).reach,
	},
}

var journalRoutes = []route{
	{
		Method: http.MethodGet, Path: "/v1/journal", ID: "readJournal", Doc: "Returns the events after one. With wait, waits for the first of them.",
		Operation: policy.OpAuditRead, City: noCity,
		Query: []param{
			{"after", "integer", "sequence number of the last event known"}, {"limit", "integer", "events in a page, at most 1000"},
			{"wait", "string", "how long to wait for an event, such as 30s"},
		},
		Status: 200, Answer: client.Page[client.Event]{}, Handle: (*Server).journal,
	},
	{
		Method: http.MethodGet, Path: "/v1/journal/checkpoint", ID: "readCheckpoint",
		Doc:       "Returns a signed checkpoint of the journal as a signed note. When something has happened since the last one, a new one is signed, which is itself journalled.",
		Operation: policy.OpAuditRead, City: noCity, Status: 200, Media: client.MediaNote, Handle: (*Server).checkpoint,
	},
	{
		Method: http.MethodGet, Path: "/v1/journal/key", ID: "readCheckpointKey",
		Doc:       "Returns the public key, in PEM, that checkpoints and the statements in directories are checked with.",
		Operation: policy.OpCARead, City: noCity, Status: 200, Media: client.MediaNote, Handle: (*Server).checkpointKey,
	},
	{
		Method: http.MethodGet, Path: "/v1/journal/proof", ID: "proveJournal",
		Doc:       "Proves that an event is in the tree of a size (seq and size), or that the tree of one size is the beginning of another (from and size); RFC 6962, Section 2.1.",
		Operation: policy.OpAuditRead, City: noCity,
		Query: []param{
			{"seq", "integer", "sequence number of the event"}, {"from", "integer", "size of the older tree"},
			{"size", "integer", "size of the tree; absent means the present one"},
		},
		Status: 200, Answer: client.Proof{}, Handle: (*Server).proof,
	},
}

var officerRoutes = []route{
	{
		Method: http.MethodGet, Path: "/v1/officers", ID: "listOfficers", Doc: "Lists the people and machines that may act.",
		Operation: policy.OpOfficerRead, City: noCity, Query: paging, Status: 200, Answer: client.Page[client.Officer]{}, Handle: (*Server).officers,
	},
	{
		Method: http.MethodPost, Path: "/v1/officers", ID: "addOfficer", Doc: "Asks that a person or a machine be added; it happens when another person has approved.",
		Operation: policy.OpOfficerAdd, City: noCity, Write: true,
		Body:   client.OfficerRequest{Name: "Li Lei", Roles: []string{"city-operator"}, City: "330100", Certificate: exampleDER},
		Status: 202, Answer: client.Approval{}, Location: true, Handle: (*Server).addOfficer,
	},
	{
		Method: http.MethodDelete, Path: "/v1/officers/{fingerprint}", ID: "removeOfficer", Doc: "Asks that somebody's rights be taken away; it happens when another person has approved.",
		Operation: policy.OpOfficerRemove, City: noCity, Write: true, Status: 202, Answer: client.Approval{}, Location: true, Handle: (*Server).removeOfficer,
	},
	{
		Method: http.MethodGet, Path: "/v1/approvals", ID: "listApprovals", Doc: "Lists approvals, those of the caller's city or, for the centre, all.",
		Operation: policy.OpApprovalRead, City: ofCaller, Query: append([]param{{"state", "string", "open, granted, used or expired; absent means all"}}, paging...),
		Status: 200, Answer: client.Page[client.Approval]{}, Handle: (*Server).approvals,
	},
	{
		Method: http.MethodGet, Path: "/v1/approvals/{id}", ID: "readApproval", Doc: "Returns one approval with the bytes that an approver signs.",
		Operation: policy.OpApprovalRead, City: ofApproval, Status: 200, Answer: client.Approval{}, Handle: (*Server).approval,
	},
	{
		Method: http.MethodPost, Path: "/v1/approvals/{id}", ID: "approve",
		Doc:       "Adds the caller's signature. With the last one needed, a change of officers happens in the same transaction; a certificate is issued when its requester asks again.",
		Operation: policy.OpApprovalGive, City: ofApproval, Write: true, Body: client.Consent{CMS: exampleDER},
		CMS:    func(c *call, v any) { v.(*client.Consent).CMS = c.raw },
		Status: 200, Answer: client.Approval{}, Handle: (*Server).approve,
	},
}

var topUpRoutes = []route{
	{
		Method: http.MethodPost, Path: "/v1/topup/verify", ID: "verifyLoad", Doc: "Judges a reader's load request: sizes, chain, names, policy, purpose, signature, then status.",
		Operation: policy.OpTopUpVerify, City: ofMessage, Body: client.LoadMessage{Message: exampleDER},
		CMS:    func(c *call, v any) { v.(*client.LoadMessage).Message = c.raw },
		Status: 200, Answer: client.Load{}, Handle: (*Server).verifyLoad,
	},
	{
		Method: http.MethodPost, Path: "/v1/topup/authorise", ID: "authoriseLoad",
		Doc:       "Records the city's decision and returns its signed permission, with the scripts sealed to the reader. The signed message is the idempotency: the same bytes get the same permission.",
		Operation: policy.OpTopUpAuthorise, City: ofMessage, Write: true, MaxBody: 256 << 10,
		Body:   client.Authorisation{Message: exampleDER, CommandScript: []byte{0}, DataScript: []byte{0}, MAC1Accepted: true},
		Status: 200, Answer: client.Permission{}, Handle: (*Server).authoriseLoad,
	},
	{
		Method: http.MethodPost, Path: "/v1/topup/confirm", ID: "confirmLoad",
		Doc:       "Closes a transaction with the reader's signed result. A bare message leaves the TAC unaccepted unless tac-accepted=true. The signed message is the idempotency.",
		Operation: policy.OpTopUpConfirm, City: ofMessage, Write: true, Query: []param{{"tac-accepted", "boolean", "with a bare message: the city's card keys have accepted the TAC"}},
		Body: client.Confirmation{Message: exampleDER, TACAccepted: true},
		CMS: func(c *call, v any) {
			*v.(*client.Confirmation) = client.Confirmation{Message: c.raw, TACAccepted: c.query("tac-accepted") == "true"}
		},
		Status: 200, Answer: client.Transaction{}, Handle: (*Server).confirmLoad,
	},
	{
		Method: http.MethodGet, Path: "/v1/topup/transactions", ID: "listTransactions", Doc: "Lists the loads of one city.",
		Operation: policy.OpTopUpRead, City: ofQuery, Query: append([]param{byCity, {"state", "string", "state of the transaction, or overdue"}}, paging...),
		Status: 200, Answer: client.Page[client.Transaction]{}, Handle: (*Server).transactions,
	},
	{
		Method: http.MethodGet, Path: "/v1/topup/transactions/{id}", ID: "readTransaction", Doc: "Returns one load.",
		Operation: policy.OpTopUpRead, City: ofMessage, Status: 200, Answer: client.Transaction{}, Handle: (*Server).transaction,
	},
	{
		Method: http.MethodPost, Path: "/v1/topup/transactions/{id}/resolve", ID: "resolveTransaction", Doc: "Closes a load whose result never came, by what the card showed when it was read again.",
		Operation: policy.OpTopUpConfirm, City: ofMessage, Write: true, Body: client.Resolution{Counter: 42, Balance: 5000, Note: "read at counter 3 of branch 12"},
		Status: 200, Answer: client.Transaction{}, Handle: (*Server).resolveTransaction,
	},
	{
		Method: http.MethodGet, Path: "/v1/agreements", ID: "listAgreements", Doc: "Lists the agreements between cities.",
		Operation: policy.OpAgreementRead, City: ofQuery, Query: append([]param{byCity}, paging...),
		Status: 200, Answer: client.Page[client.Agreement]{}, Handle: (*Server).agreements,
	},
	{
		Method: http.MethodPut, Path: "/v1/agreements", ID: "putAgreement", Doc: "Approves, or ends, an agreement on behalf of one city. It stands when both have approved the same end.",
		Operation: policy.OpAgreementWrite, City: ofAgreement, Write: true,
		Body:   client.AgreementRequest{City: "330100", Other: "330200", Until: time.Date(2030, 12, 31, 0, 0, 0, 0, time.UTC)},
		Status: 200, Answer: client.Agreement{}, Handle: (*Server).putAgreement,
	},
}

var nodeRoutes = []route{
	{
		Method: http.MethodGet, Path: "/v1/jobs", ID: "listJobs", Doc: "Lists jobs, newest first.",
		Operation: policy.OpJobRead, City: ofQuery, Query: append([]param{byCity}, paging...), Status: 200, Answer: client.Page[client.Job]{}, Handle: (*Server).jobs,
	},
	{
		Method: http.MethodGet, Path: "/v1/jobs/{id}", ID: "readJob", Doc: "Returns one job. With wait, waits until its version is greater than after.",
		Operation: policy.OpJobRead, City: ofJob, Query: []param{{"after", "integer", "the version known"}, {"wait", "string", "how long to wait, such as 30s"}},
		Status: 200, Answer: client.Job{}, Handle: (*Server).job,
	},
	{
		Method: http.MethodGet, Path: "/v1/jobs/{id}/items", ID: "listJobItems", Doc: "Lists the result for each item of a job.",
		Operation: policy.OpJobRead, City: ofJob, Query: paging,
		Status: 200, Answer: client.Page[client.JobItem]{}, Handle: (*Server).jobItems,
	},
	{
		Method: http.MethodPost, Path: "/v1/jobs/{id}/cancel", ID: "cancelJob", Doc: "Asks a job to stop.",
		Operation: policy.OpJobCancel, City: ofJob, Write: true, Status: 200, Answer: client.Job{}, Handle: (*Server).cancelJob,
	},
	{
		Method: http.MethodPost, Path: "/v1/check", ID: "checkBook", Doc: "Starts a job that checks the whole book.",
		Operation: policy.OpCheck, City: noCity, Write: true, Status: 202, Answer: client.Job{}, Location: true, Handle: (*Server).check,
	},
	{
		Method: http.MethodGet, Path: "/v1/backup", ID: "backup", Doc: "Streams a consistent snapshot of the book, with its own checksum.",
		Operation: policy.OpBackup, City: noCity, Status: 200, Media: client.MediaBackup, Handle: (*Server).backup,
	},
	{
		Method: http.MethodGet, Path: "/v1/whoami", ID: "whoAmI", Doc: "Tells who the node takes the caller for.",
		Access: anyPerson, City: noCity, Status: 200, Answer: client.Person{}, Handle: (*Server).whoAmI,
	},
	{
		Method: http.MethodGet, Path: "/openapi.json", ID: "openAPI", Doc: "Returns this document.",
		Access: anyPeer, City: noCity, Status: 200, Media: client.MediaJSON, Handle: (*Server).openAPI,
	},
	{
		Method: http.MethodGet, Path: "/problems/{name}", ID: "readProblem", Doc: "Tells about one sort of problem.",
		Access: anyPeer, City: noCity, Status: 200, Media: client.MediaNote, Handle: (*Server).problemPage,
	},
	{
		Method: http.MethodGet, Path: "/metrics", ID: "metrics", Doc: "Returns the node's metrics in the text format of Prometheus.",
		Access: anyPerson, City: noCity, Status: 200, Media: client.MediaMetrics, Handle: (*Server).metricsPage,
	},
	{
		Method: http.MethodGet, Path: "/healthz", ID: "healthy", Doc: "Tells whether the process lives.",
		Access: anyPeer, City: noCity, Status: 200, Answer: client.Health{}, Handle: (*Server).healthy,
	},
	{
		Method: http.MethodGet, Path: "/readyz", ID: "ready", Doc: "Tells whether the node can do its work.",
		Access: anyPeer, City: noCity, Status: 200, Answer: client.Health{}, Handle: (*Server).readyNow,
	},
}
