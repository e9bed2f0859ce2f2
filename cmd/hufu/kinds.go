package main

import (
	"slices"
	"strings"

	"hufu/issuance/escrow"
	"hufu/jobs"
	"hufu/ldapsync"
	"hufu/readers/stage1"
	"hufu/readers/stage2"
	"hufu/store"
	"hufu/topup"
)

// eventKinds are all kinds of events that the journal has, in order. A test holds
// them against the constants of the packages that append events.
var eventKinds = slices.Sorted(slices.Values([]string{
	store.KindBookCreated, store.KindBookRestored, store.KindBookUpgraded, store.KindCheckpoint,
	store.KindCAAdded, store.KindCARetired,
	store.KindIntent, store.KindIssued, store.KindIntentClosed, store.KindHeld, store.KindResumed, store.KindRevoked, store.KindCRL,
	store.KindRefused, store.KindOfficerAdded, store.KindOfficerRemoved,
	store.KindApprovalRequested, store.KindApprovalGiven, store.KindApprovalUsed,
	store.KindReaderIssued, store.KindReaderSuspended, store.KindReaderResumed, store.KindReaderRevoked,
	store.KindReaderEntered, store.KindReaderPrepared, store.KindReaderAllotted, store.KindReaderWithdrawn, store.KindReaderAccepted,
	store.KindReaderInitialised, store.KindReaderActivated, store.KindReaderReported, store.KindReaderRenewing, store.KindReaderRenewed,
	store.KindReaderReplaced, store.KindReaderSucceeded, store.KindReaderRetired, store.KindReaderBound, store.KindReaderAdopted,
	stage1.KindModelAdded, stage1.KindModelWithdrawn, stage1.KindManifest,
	stage1.KindTicketBegun, stage1.KindTicketSigned, stage1.KindTicketImported, stage1.KindTicketRevoked,
	stage2.KindRefused, stage2.KindReceipt,
	escrow.KindMade, escrow.KindClaimed, escrow.KindInUse, escrow.KindHistory, escrow.KindDelivered, escrow.KindRecovered, escrow.KindRefused,
	store.KindTopUpAuthorised, store.KindTopUpConfirmed, store.KindTopUpSuperseded, topup.KindResolved, store.KindAgreement,
	store.KindDirectoryAdded, store.KindDirectoryRepaired,
	ldapsync.KindLate, ldapsync.KindBack, ldapsync.KindRecalled, ldapsync.KindPutBack,
	jobs.KindStarted, jobs.KindCancel, jobs.KindCancelled, jobs.KindDone, jobs.KindFailed,
}))

// columned writes words in lines of three, for a help text.
func columned(words []string) string {
	wide := 0
	for _, w := range words {
		wide = max(wide, len(w))
	}
	var b strings.Builder
	for row := range slices.Chunk(words, 3) {
		line := ""
		for _, w := range row {
			line += "  " + w + strings.Repeat(" ", wide-len(w))
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	return strings.TrimRight(b.String(), "\n")
}
