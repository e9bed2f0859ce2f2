package purse

import (
	"bytes"
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"io"
)

// Status words of the card.
const (
	swOK           = 0x9000
	swWrongLength  = 0x6700
	swState        = 0x6901
	swNotSatisfied = 0x6985
	swNoFile       = 0x6A82
	swNoRecord     = 0x6A83
	swP1P2         = 0x6A86
	swINS          = 0x6D00
	swCLA          = 0x6E00
	swMAC          = 0x9302
	swLocked       = 0x9303
	swCounterMax   = 0x9402
	swNoKey        = 0x9403
	swNoProof      = 0x9406
	maxMACErrors   = 3
	maxBalance     = 1_000_000_00
	publicDataSFI  = 0x15
	publicDataSize = 30
	logSFI         = 0x18
	logRecords     = 10
	algorithm3DES  = 0x00
	loadKeyIndex   = 0x01
	loadKeyVersion = 0x01
)

// AID is the purse application's DF name.
var AID = []byte{0xA0, 0x00, 0x00, 0x03, 0x86, 0x98, 0x07, 0x01}

// Tear says where the field is taken away in the next CREDIT FOR LOAD.
type Tear int

const (
	TearNone         Tear = iota
	TearBeforeCommit      // nothing was written
	TearAfterCommit       // written, but no answer left the card
)

// Memory is what survives when the card leaves the field.
type Memory struct {
	ASN     [10]byte // application serial number
	City    [3]byte  // city code, packed BCD
	LoadKey Key
	TACKey  Key
	Balance uint32
	Online  uint16
	Offline uint16
	Errors  int
	Log     [][]byte
	Proof   Proof // of the last load
}

// Proof is what the card can show of its last load again.
type Proof struct {
	Type      byte
	Counter   uint16 // before the load
	MAC2, TAC [4]byte
}

// Card is one CPU card in the field: a state machine on C-APDU bytes. It is
// for one goroutine.
type Card struct {
	mem  Memory
	Rand io.Reader           // nil: crypto/rand
	Save func(*Memory) error // called before an answer that changed the memory leaves; nil: memory only
	Tear Tear

	selected bool
	load     *Load // between INITIALIZE FOR LOAD and CREDIT FOR LOAD
}

// NewCard puts a card into the field.
func NewCard(m Memory) *Card { return &Card{mem: m} }

// Memory is a copy of the card's lasting state.
func (c *Card) Memory() Memory { return c.mem }

// Reset is the field going away and coming back.
func (c *Card) Reset() { c.selected, c.load = false, nil }

// Transmit runs one command and gives the answer with its status word; torn
// means that the card left the field and there is no answer.
func (c *Card) Transmit(apdu []byte) (answer []byte, torn bool) {
	data, sw := c.run(apdu)
	if sw == 0 {
		c.Reset()
		return nil, true
	}
	return binary.BigEndian.AppendUint16(data, sw), false
}

func (c *Card) run(a []byte) ([]byte, uint16) {
	if len(a) < 4 {
		return nil, swWrongLength
	}
	// Any command but CREDIT FOR LOAD drops the load state.
	load := c.load
	c.load = nil
	switch cla, ins := a[0], a[1]; {
	case cla == 0x00 && ins == 0xA4:
		return c.selectAID(a)
	case !c.selected:
		return nil, swNotSatisfied
	case cla == 0x00 && ins == 0xB0:
		return c.readBinary(a)
	case cla == 0x00 && ins == 0xB2:
		return c.readRecord(a)
	case cla == 0x80 && ins == 0x5C:
		return c.balance(a)
	case cla == 0x80 && ins == 0x5A:
		return c.prove(a)
	case cla == 0x80 && ins == 0x50:
		return c.initialize(a)
	case cla == 0x80 && ins == 0x52:
		return c.credit(a, load)
	case cla != 0x00 && cla != 0x80:
		return nil, swCLA
	}
	return nil, swINS
}

func (c *Card) selectAID(a []byte) ([]byte, uint16) {
	c.selected = false
	if len(a) < 5 || len(a) < 5+int(a[4]) {
		return nil, swWrongLength
	}
	if !bytes.Equal(a[5:5+int(a[4])], AID) {
		return nil, swNoFile
	}
	c.selected = true
	fci := append([]byte{0x84, byte(len(AID))}, AID...)
	return append([]byte{0x6F, byte(len(fci))}, fci...), swOK
}

// readBinary knows the public data file only: city code at 2, application
// serial number at 10, as the construction-sector cards have them.
func (c *Card) readBinary(a []byte) ([]byte, uint16) {
	if a[2]&0x9F != 0x80|publicDataSFI || len(a) != 5 {
		return nil, swNoFile
	}
	file := make([]byte, publicDataSize)
	copy(file[2:], c.mem.City[:])
	copy(file[10:], c.mem.ASN[:])
	from, n := int(a[3]), int(a[4])
	if n == 0 {
		n = len(file) - from
	}
	if from+n > len(file) || n < 0 {
		return nil, swWrongLength
	}
	return file[from : from+n : from+n], swOK
}

func (c *Card) readRecord(a []byte) ([]byte, uint16) {
	if a[3] != logSFI<<3|4 {
		return nil, swNoFile
	}
	i := int(a[2])
	if i < 1 || i > len(c.mem.Log) {
		return nil, swNoRecord
	}
	return bytes.Clone(c.mem.Log[i-1]), swOK
}

func (c *Card) balance(a []byte) ([]byte, uint16) {
	if a[2] != 0x00 || a[3] != 0x02 {
		return nil, swP1P2
	}
	return binary.BigEndian.AppendUint32(nil, c.mem.Balance), swOK
}

// prove shows MAC and TAC of the last load to whoever did not get its answer.
func (c *Card) prove(a []byte) ([]byte, uint16) {
	switch p := &c.mem.Proof; {
	case len(a) != 8 || a[4] != 0x02:
		return nil, swWrongLength
	case a[2] != 0x00:
		return nil, swP1P2
	case p.Type == 0 || p.Type != a[3] || p.Counter != binary.BigEndian.Uint16(a[5:]):
		return nil, swNoProof
	default:
		return append(p.MAC2[:len(p.MAC2):len(p.MAC2)], p.TAC[:]...), swOK
	}
}

func (c *Card) initialize(a []byte) ([]byte, uint16) {
	switch {
	case a[2] != 0x00 || a[3] != 0x02:
		return nil, swP1P2
	case len(a) != 17 || a[4] != 0x0B:
		return nil, swWrongLength
	case c.mem.Errors >= maxMACErrors:
		return nil, swLocked
	case a[5] != loadKeyIndex:
		return nil, swNoKey
	case c.mem.Online == 0xFFFF:
		return nil, swCounterMax
	}
	l := &Load{OldBalance: c.mem.Balance, Counter: c.mem.Online, Amount: binary.BigEndian.Uint32(a[6:]), Type: TypeEPLoad, Terminal: Terminal(a[10:16])}
	if l.Amount == 0 || l.Amount > maxBalance || c.mem.Balance > maxBalance-l.Amount {
		return nil, swNotSatisfied
	}
	r := c.Rand
	if r == nil {
		r = rand.Reader
	}
	if _, err := io.ReadFull(r, l.Random[:]); err != nil {
		return nil, swNotSatisfied
	}
	mac1 := l.MAC1(c.mem.LoadKey)
	c.load = l
	out := binary.BigEndian.AppendUint32(nil, l.OldBalance)
	out = binary.BigEndian.AppendUint16(out, l.Counter)
	out = append(out, loadKeyVersion, algorithm3DES)
	out = append(out, l.Random[:]...)
	return append(out, mac1[:]...), swOK
}

func (c *Card) credit(a []byte, l *Load) ([]byte, uint16) {
	switch {
	case l == nil:
		return nil, swState
	case len(a) != 17 || a[4] != 0x0B:
		return nil, swWrongLength
	}
	l.HostDate, l.HostTime = [4]byte(a[5:9]), [3]byte(a[9:12])
	want := l.MAC2(c.mem.LoadKey)
	if subtle.ConstantTimeCompare(want[:], a[12:16]) != 1 {
		c.mem.Errors++
		_ = c.save() // refused either way
		return nil, swMAC
	}
	tear := c.Tear
	c.Tear = TearNone
	if tear == TearBeforeCommit {
		return nil, 0
	}
	before := c.mem
	tac := l.TAC(c.mem.TACKey)
	c.mem.Balance += l.Amount
	c.mem.Online++
	c.mem.Errors = 0
	c.mem.Proof = Proof{Type: l.Type, Counter: l.Counter, MAC2: want, TAC: tac}
	c.mem.Log = append([][]byte{l.record()}, c.mem.Log...)
	if len(c.mem.Log) > logRecords {
		c.mem.Log = c.mem.Log[:logRecords]
	}
	if c.save() != nil {
		c.mem = before
		return nil, 0
	}
	if tear == TearAfterCommit {
		return nil, 0
	}
	return tac[:], swOK
}

func (c *Card) save() error {
	if c.Save == nil {
		return nil
	}
	return c.Save(&c.mem)
}

// record is the log entry of 23 octets.
func (l *Load) record() []byte {
	r := binary.BigEndian.AppendUint16(nil, l.Counter)
	r = append(r, 0, 0, 0)
	r = binary.BigEndian.AppendUint32(r, l.Amount)
	r = append(append(r, l.Type), l.Terminal[:]...)
	return append(append(r, l.HostDate[:]...), l.HostTime[:]...)
}
