// Package purse has the cryptography and the commands of the e-purse on a
// city's CPU card (the PBOC e-purse of CJ/T 166 and JR/T 0025): key
// diversification, session keys, MAC1, MAC2 and TAC with 3DES, and the card
// itself as a state machine on C-APDU bytes.
//
// The card (examples/topup/card) and the city's back end (examples/topup/city)
// share it, as a real card and a real key management system share the
// standard. It does loads and balances only: no purchase, no SM4 card.
package purse

import (
	"crypto/cipher"
	"crypto/des"
	"crypto/subtle"
	"encoding/binary"
	"errors"
)

// Key is a two-key 3DES key, K1 | K2; parity bits are ignored.
type Key [16]byte

// TypeEPLoad is the type identifier of a load of the electronic purse.
const TypeEPLoad = 0x02

// Terminal is a terminal number (终端机编号).
type Terminal [6]byte

func (k Key) block() cipher.Block {
	b, err := des.NewTripleDESCipher(append(k[:], k[:8]...))
	if err != nil {
		panic(err) // only for a wrong length, and 24 is right
	}
	return b
}

// Diversify derives the key of the level below (密钥分散): the factor
// encrypted, then its complement encrypted.
func (k Key) Diversify(factor [8]byte) Key {
	var out Key
	var inverted [8]byte
	for i, b := range factor {
		inverted[i] = ^b
	}
	c := k.block()
	c.Encrypt(out[:8], factor[:])
	c.Encrypt(out[8:], inverted[:])
	return out
}

// KCV is the key check value: the first four octets of eight encrypted zeros.
func (k Key) KCV() [4]byte {
	var out [8]byte
	k.block().Encrypt(out[:], out[:])
	return [4]byte(out[:4])
}

// sessionKey is the single-DES key of one load (过程密钥).
func (k Key) sessionKey(random [4]byte, counter uint16) []byte {
	in := make([]byte, 0, 8)
	in = append(in, random[:]...)
	in = binary.BigEndian.AppendUint16(in, counter)
	in = append(in, 0x80, 0x00)
	k.block().Encrypt(in, in)
	return in
}

// tacKey is the left half of the TAC key XOR its right half.
func (k Key) tacKey() []byte {
	out := make([]byte, 8)
	subtle.XORBytes(out, k[:8], k[8:])
	return out
}

// mac is CBC-MAC with single DES: zero IV, padding 80 00…, always at least one
// octet of it; the leftmost four octets.
func mac(key, data []byte) [4]byte {
	c, err := des.NewCipher(key)
	if err != nil {
		panic(err) // the key is eight octets by construction
	}
	padded := append(append([]byte(nil), data...), 0x80)
	for len(padded)%8 != 0 {
		padded = append(padded, 0)
	}
	var x [8]byte
	for ; len(padded) > 0; padded = padded[8:] {
		subtle.XORBytes(x[:], x[:], padded[:8])
		c.Encrypt(x[:], x[:])
	}
	return [4]byte(x[:4])
}

// Load is what card and host know of one load, in fen.
type Load struct {
	OldBalance uint32
	Counter    uint16 // online counter before the load
	Random     [4]byte
	Amount     uint32
	Type       byte
	Terminal   Terminal
	HostDate   [4]byte // YYYYMMDD, packed BCD
	HostTime   [3]byte // hhmmss, packed BCD
}

// MAC1 proves the card to the host.
func (l *Load) MAC1(loadKey Key) [4]byte {
	d := binary.BigEndian.AppendUint32(nil, l.OldBalance)
	d = binary.BigEndian.AppendUint32(d, l.Amount)
	d = append(append(d, l.Type), l.Terminal[:]...)
	return mac(loadKey.sessionKey(l.Random, l.Counter), d)
}

// MAC2 proves the host to the card.
func (l *Load) MAC2(loadKey Key) [4]byte {
	d := binary.BigEndian.AppendUint32(nil, l.Amount)
	d = append(append(d, l.Type), l.Terminal[:]...)
	d = append(append(d, l.HostDate[:]...), l.HostTime[:]...)
	return mac(loadKey.sessionKey(l.Random, l.Counter), d)
}

// TAC proves to the city that the card credited the load.
func (l *Load) TAC(tacKey Key) [4]byte {
	d := binary.BigEndian.AppendUint32(nil, l.OldBalance+l.Amount)
	d = binary.BigEndian.AppendUint16(d, l.Counter)
	d = binary.BigEndian.AppendUint32(d, l.Amount)
	d = append(append(d, l.Type), l.Terminal[:]...)
	d = append(append(d, l.HostDate[:]...), l.HostTime[:]...)
	return mac(tacKey.tacKey(), d)
}

// ErrAnswer means that a card's answer has the wrong form.
var ErrAnswer = errors.New("purse: the card's answer has the wrong length")

// InitializeForLoad is the command (圈存初始化) for the electronic purse.
func InitializeForLoad(keyIndex byte, amount uint32, terminal Terminal) []byte {
	c := []byte{0x80, 0x50, 0x00, 0x02, 0x0B, keyIndex}
	c = binary.BigEndian.AppendUint32(c, amount)
	c = append(c, terminal[:]...)
	return append(c, 0x10)
}

// Initialized is the card's answer to it.
type Initialized struct {
	Balance            uint32
	Counter            uint16
	Version, Algorithm byte
	Random             [4]byte
	MAC1               [4]byte
}

// ParseInitialized reads the answer's 16 octets, without the status word.
func ParseInitialized(b []byte) (*Initialized, error) {
	if len(b) != 16 {
		return nil, ErrAnswer
	}
	return &Initialized{
		Balance: binary.BigEndian.Uint32(b), Counter: binary.BigEndian.Uint16(b[4:]),
		Version: b[6], Algorithm: b[7], Random: [4]byte(b[8:12]), MAC1: [4]byte(b[12:]),
	}, nil
}

// CreditForLoad is the command (圈存).
func CreditForLoad(date [4]byte, time [3]byte, mac2 [4]byte) []byte {
	c := []byte{0x80, 0x52, 0x00, 0x00, 0x0B}
	c = append(append(append(c, date[:]...), time[:]...), mac2[:]...)
	return append(c, 0x04)
}

// Select is the command that opens the purse application.
func Select() []byte { return append([]byte{0x00, 0xA4, 0x04, 0x00, byte(len(AID))}, AID...) }

// GetTransactionProve is the command (取交易认证) that asks for MAC and TAC of the
// last transaction, by its type and the counter before it.
func GetTransactionProve(kind byte, counter uint16) []byte {
	return append(binary.BigEndian.AppendUint16([]byte{0x80, 0x5A, 0x00, kind, 0x02}, counter), 0x08)
}

// ReadPublic is the command that reads the public data file.
func ReadPublic() []byte { return []byte{0x00, 0xB0, 0x80 | publicDataSFI, 0x00, publicDataSize} }

// Public is what the example needs of the public data file.
type Public struct {
	City [3]byte
	ASN  [10]byte
}

// ParsePublic reads the answer to ReadPublic, without the status word.
func ParsePublic(b []byte) (*Public, error) {
	if len(b) != publicDataSize {
		return nil, ErrAnswer
	}
	return &Public{City: [3]byte(b[2:5]), ASN: [10]byte(b[10:20])}, nil
}

// GetBalance is the command for the electronic purse.
func GetBalance() []byte { return []byte{0x80, 0x5C, 0x00, 0x02, 0x04} }
