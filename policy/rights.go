package policy

import (
	"fmt"
	"slices"
	"strings"
)

// A Role is what a person or a machine is trusted with.
type Role string

// The roles.
const (
	RootOfficer  Role = "root-officer"
	CAAdmin      Role = "ca-admin"
	CAOperator   Role = "ca-operator"
	CityOperator Role = "city-operator"
	Counter      Role = "counter"
	KeyOfficer   Role = "key-officer"
	Auditor      Role = "auditor"
	TopUp        Role = "topup"
)

// Roles lists the roles in the order of the table's columns.
var Roles = []Role{RootOfficer, CAAdmin, CAOperator, CityOperator, Counter, KeyOfficer, Auditor, TopUp}

// An Operation is something that a caller wants done.
type Operation string

// The operations.
const (
	OpCertificateIssue   Operation = "certificate.issue"
	OpCertificateRead    Operation = "certificate.read"
	OpCertificateSuspend Operation = "certificate.suspend"
	OpCertificateResume  Operation = "certificate.resume"
	OpCertificateRevoke  Operation = "certificate.revoke"
	OpReaderIssue        Operation = "reader.issue"
	OpReaderInitialise   Operation = "reader.initialise"
	OpReaderRead         Operation = "reader.read"
	OpReaderSuspend      Operation = "reader.suspend"
	OpReaderResume       Operation = "reader.resume"
	OpReaderRevoke       Operation = "reader.revoke"
	OpReaderBind         Operation = "reader.bind"
	OpReaderReplace      Operation = "reader.replace"
	OpReaderRetire       Operation = "reader.retire"
	OpReaderMass         Operation = "reader.mass"
	OpModelRead          Operation = "model.read"
	OpModelWrite         Operation = "model.write"
	OpManifestRead       Operation = "manifest.read"
	OpManifestImport     Operation = "manifest.import"
	OpTicketRead         Operation = "ticket.read"
	OpTicketCreate       Operation = "ticket.create"
	OpTicketRevoke       Operation = "ticket.revoke"
	OpTicketImport       Operation = "ticket.import"
	OpTicketReconcile    Operation = "ticket.reconcile"
	OpCARead             Operation = "ca.read"
	OpCRLPublish         Operation = "crl.publish"
	OpDirectoryRead      Operation = "directory.read"
	OpDirectoryRepair    Operation = "directory.repair"
	OpAuditRead          Operation = "audit.read"
	OpOfficerRead        Operation = "officer.read"
	OpOfficerAdd         Operation = "officer.add"
	OpOfficerRemove      Operation = "officer.remove"
	OpApprovalGive       Operation = "approval.give"
	OpApprovalRead       Operation = "approval.read"
	OpJobRead            Operation = "job.read"
	OpJobCancel          Operation = "job.cancel"
	OpTopUpVerify        Operation = "topup.verify"
	OpTopUpAuthorise     Operation = "topup.authorise"
	OpTopUpConfirm       Operation = "topup.confirm"
	OpTopUpRead          Operation = "topup.read"
	OpAgreementWrite     Operation = "agreement.write"
	OpAgreementRead      Operation = "agreement.read"
	OpEscrowRead         Operation = "escrow.read"
	OpEscrowRecover      Operation = "escrow.recover"
	OpBackup             Operation = "backup"
	OpCheck              Operation = "check"
)

// A Caller is who asks: a certificate, and what the book says of its holder.
type Caller struct {
	Fingerprint [32]byte
	Name        string
	Roles       []Role
	City        string // "" = the centre, which acts for all cities
	Serial      [17]byte
	CA          string
}

// scope says where a role may do an operation.
type scope uint8

const (
	not scope = iota // nowhere
	own              // in the caller's own city; a caller of the centre in every city and for what belongs to none
	hub              // only a caller of the centre
	all              // everywhere, whatever city the caller belongs to
)

type right struct {
	cells [8]scope
	op    Operation
}

// rights is the whole table, one row an operation, one column a role. What does
// not stand here is refused. A city's staff reach what belongs to their city
// and nothing that belongs to none; an admin appoints and looks but does not
// touch readers; an auditor reads everything and changes nothing; root officers
// work on the offline machine alone, so that the daemon grants them nothing.
var rights = []right{
	// root-officer
	//       |    ca-admin
	//       |    |    ca-operator
	//       |    |    |    city-operator
	//       |    |    |    |    counter
	//       |    |    |    |    |    key-officer
	//       |    |    |    |    |    |    auditor
	//       |    |    |    |    |    |    |    topup
	{[8]scope{not, own, own, own, not, not, not, not}, OpCertificateIssue},
	{[8]scope{not, own, own, own, own, own, all, own}, OpCertificateRead},
	{[8]scope{not, own, own, own, not, not, not, not}, OpCertificateSuspend},
	{[8]scope{not, own, own, own, not, not, not, not}, OpCertificateResume},
	{[8]scope{not, own, own, own, not, not, not, not}, OpCertificateRevoke},
	{[8]scope{not, not, own, own, not, not, not, not}, OpReaderIssue},
	{[8]scope{not, not, own, own, not, not, not, not}, OpReaderInitialise},
	{[8]scope{not, own, own, own, own, own, all, own}, OpReaderRead},
	{[8]scope{not, not, own, own, own, not, not, not}, OpReaderSuspend},
	{[8]scope{not, not, own, own, own, not, not, not}, OpReaderResume},
	{[8]scope{not, not, own, own, own, not, not, not}, OpReaderRevoke},
	{[8]scope{not, not, own, own, own, not, not, not}, OpReaderBind},
	{[8]scope{not, not, own, own, own, not, not, not}, OpReaderReplace},
	{[8]scope{not, not, own, own, not, not, not, not}, OpReaderRetire},
	{[8]scope{not, not, own, own, not, not, not, not}, OpReaderMass},
	{[8]scope{not, all, all, all, all, not, all, not}, OpModelRead},
	{[8]scope{not, hub, hub, not, not, not, not, not}, OpModelWrite},
	{[8]scope{not, hub, hub, not, not, not, all, not}, OpManifestRead},
	{[8]scope{not, not, hub, not, not, not, not, not}, OpManifestImport},
	{[8]scope{not, own, own, own, own, not, all, not}, OpTicketRead},
	{[8]scope{not, not, hub, not, not, not, not, not}, OpTicketCreate},
	{[8]scope{not, hub, hub, not, not, not, not, not}, OpTicketRevoke},
	{[8]scope{not, not, own, own, not, not, not, not}, OpTicketImport},
	{[8]scope{not, not, hub, not, not, not, not, not}, OpTicketReconcile},
	{[8]scope{not, all, all, all, all, all, all, all}, OpCARead},
	{[8]scope{not, own, own, own, not, not, not, not}, OpCRLPublish},
	{[8]scope{not, all, all, all, not, not, all, not}, OpDirectoryRead},
	{[8]scope{not, hub, hub, not, not, not, not, not}, OpDirectoryRepair},
	{[8]scope{not, hub, hub, not, not, not, all, not}, OpAuditRead},
	{[8]scope{not, hub, hub, not, not, not, all, not}, OpOfficerRead},
	{[8]scope{not, hub, not, not, not, not, not, not}, OpOfficerAdd},
	{[8]scope{not, hub, not, not, not, not, not, not}, OpOfficerRemove},
	{[8]scope{not, own, own, own, not, own, not, not}, OpApprovalGive},
	{[8]scope{not, own, own, own, not, own, all, not}, OpApprovalRead},
	{[8]scope{not, own, own, own, not, not, all, not}, OpJobRead},
	{[8]scope{not, own, own, own, not, not, not, not}, OpJobCancel},
	{[8]scope{not, not, not, not, not, not, not, own}, OpTopUpVerify},
	{[8]scope{not, not, not, not, not, not, not, own}, OpTopUpAuthorise},
	{[8]scope{not, not, not, not, not, not, not, own}, OpTopUpConfirm},
	{[8]scope{not, not, own, own, own, not, all, own}, OpTopUpRead},
	{[8]scope{not, not, own, own, not, not, not, not}, OpAgreementWrite},
	{[8]scope{not, own, own, own, not, not, all, own}, OpAgreementRead},
	{[8]scope{not, hub, hub, not, not, hub, all, not}, OpEscrowRead},
	{[8]scope{not, not, hub, not, not, hub, not, not}, OpEscrowRecover},
	{[8]scope{not, hub, hub, not, not, not, not, not}, OpBackup},
	{[8]scope{not, hub, hub, not, not, not, all, not}, OpCheck},
}

// approvers names the role that alone counts in an approval of an operation,
// where it is not enough to be somebody who may approve: what a kept key is
// recovered for is for recovery officers to judge.
var approvers = map[Operation]Role{OpEscrowRecover: KeyOfficer}

// Approver returns the role that an approver of the operation must have, "" where
// anybody counts who may approve.
func Approver(op Operation) Role { return approvers[op] }

// Operations lists every operation, in the order of the table.
func Operations() []Operation {
	ops := make([]Operation, len(rights))
	for i := range rights {
		ops[i] = rights[i].op
	}
	return ops
}

// A Denied is an operation that the table does not grant.
type Denied struct {
	Caller    string
	Roles     []Role
	Home      string // the caller's city
	Operation Operation
	City      string // the city that the operation concerns
}

func (d *Denied) Error() string {
	roles := make([]string, len(d.Roles))
	for i, r := range d.Roles {
		roles[i] = string(r)
	}
	who := fmt.Sprintf("%q (%s)", d.Caller, strings.Join(roles, ", "))
	if len(roles) == 0 {
		who = fmt.Sprintf("%q (no role)", d.Caller)
	}
	if d.Home != "" {
		who += " of city " + d.Home
	}
	where := "for what belongs to no city"
	if d.City != "" {
		where = "in city " + d.City
	}
	return fmt.Sprintf("%s may not do %s %s: ask somebody whose role allows it", who, d.Operation, where)
}

// Allowed returns nil when one of the caller's roles grants the operation in
// that city ("" = it belongs to no city or to all), else a *Denied.
func Allowed(caller Caller, op Operation, city string) error {
	i := slices.IndexFunc(rights, func(r right) bool { return r.op == op })
	if i >= 0 {
		for _, role := range caller.Roles {
			if col := slices.Index(Roles, role); col >= 0 && rights[i].cells[col].grants(caller.City, city) {
				return nil
			}
		}
	}
	return &Denied{Caller: caller.Name, Roles: caller.Roles, Home: caller.City, Operation: op, City: city}
}

func (s scope) grants(home, city string) bool {
	switch s {
	case own:
		return home == "" || home == city
	case hub:
		return home == ""
	case all:
		return true
	}
	return false
}
