package responder

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"hufu/internal/ocsp"
	"hufu/store"
)

// key names one answer.
type key struct {
	ca     string
	serial store.Serial
	form   form
}

// form is how the question is written: by SHA-1 or SHA-256, with or without NULL
// parameters. Each form wants its own CertID back.
type form uint8

const forms = 4

func formOf(id *ocsp.CertID) (f form) {
	if id.Hash == crypto.SHA256 {
		f |= 1
	}
	if id.Bare {
		f |= 2
	}
	return f
}

// certID writes the question anew.
func (k *key) certID(issuer *ocsp.Issuer) ocsp.CertID {
	hash := crypto.SHA1
	if k.form&1 != 0 {
		hash = crypto.SHA256
	}
	id := issuer.CertID(hash, k.serial[:])
	id.Bare = k.form&2 != 0
	return id
}

// answer is one signed response. It is kept small, since there are many: the
// certificate at its end belongs to all answers of its signer, and header values are
// written when they are wanted. Times are in seconds since 1970.
type answer struct {
	head   []byte  // all but the signer's certificate
	signer *signer // its certificate is the end of the response
	seq    uint64  // of the status that it tells

	thisUpdate int64
	renewAt    int64
	end        int64 // from then on it is not given out any more

	asked atomic.Int64         // time of the last question
	seen  atomic.Pointer[look] // the last look at the book that found it true
}

// newAnswer takes a response to one question apart.
func newAnswer(s *signed, seq uint64, maxAge time.Duration) *answer {
	life := s.nextUpdate.Sub(s.thisUpdate)
	head := bytes.TrimSuffix(s.der, s.signer.Certificate())
	a := &answer{
		head:       bytes.Clone(head),
		signer:     s.signer,
		seq:        seq,
		thisUpdate: s.thisUpdate.Unix(),
		renewAt:    s.thisUpdate.Add(life / 2).Unix(),
		end:        s.nextUpdate.Add(-max(life/4, maxAge)).Unix(),
	}
	a.asked.Store(a.thisUpdate)
	return a
}

// der is the whole response.
func (a *answer) der() []byte { return slices.Concat(a.head, a.signer.Certificate()) }

// etag names the octets of the response.
func (a *answer) etag() string {
	h := sha256.New()
	h.Write(a.head)
	h.Write(a.signer.Certificate())
	return `"` + hex.EncodeToString(h.Sum(nil)[:16]) + `"`
}

// fresh reports whether the answer may still be given out. One from the future was
// signed before the clock was set back: clients do not believe it.
func (a *answer) fresh(now time.Time) bool {
	const skew = 60 // another question may have been begun a little later
	t := now.Unix()
	return t < a.end && t >= a.thisUpdate-skew
}

// holds reports whether the answer tells the status of that sequence and is fresh.
func (a *answer) holds(seq uint64, now time.Time) bool { return a.seq == seq && a.fresh(now) }

// due reports whether the answer's time has come to be signed anew.
func (a *answer) due(now time.Time) bool { return now.Unix() >= a.renewAt }

// touch notes that the answer was asked for. A popular answer is noted once a
// second, so that the cores do not fight for the cache line.
func (a *answer) touch(now time.Time) {
	if t := now.Unix(); a.asked.Load() != t {
		a.asked.Store(t)
	}
}

// answers keeps a bounded number of answers.
type answers struct {
	shards [64]shard
}

type shard struct {
	mu   sync.RWMutex
	max  int
	kept map[key]*answer // guarded by mu
}

func newAnswers(n int) *answers {
	var a answers
	for i := range a.shards {
		a.shards[i].max = max(1, n/len(a.shards))
		a.shards[i].kept = make(map[key]*answer)
	}
	return &a
}

// shard spreads by an octet of the serial number, which is random.
func (a *answers) shard(k *key) *shard {
	return &a.shards[int(k.serial[len(k.serial)-1])%len(a.shards)]
}

func (a *answers) get(k *key) *answer {
	s := a.shard(k)
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.kept[*k]
}

// put keeps an answer unless one of a later status is there. Where the shard is
// full, of a few others the one goes that was not asked for the longest.
func (a *answers) put(k *key, v *answer) {
	s := a.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.kept[*k]
	if old != nil && old.seq > v.seq {
		return
	}
	if old == nil && len(s.kept) >= s.max {
		s.evict()
	}
	s.kept[*k] = v
}

func (s *shard) evict() {
	const sample = 8
	var victim key
	oldest, n := int64(1<<63-1), 0
	for k, v := range s.kept { // in random order
		if asked := v.asked.Load(); asked < oldest {
			oldest, victim = asked, k
		}
		if n++; n == sample {
			break
		}
	}
	delete(s.kept, victim)
}

// drop forgets all answers about a serial number and returns which there were.
func (a *answers) drop(ca string, serial store.Serial) (dropped []key) {
	k := key{ca: ca, serial: serial}
	s := a.shard(&k)
	s.mu.Lock()
	defer s.mu.Unlock()
	for k.form = range forms {
		if s.kept[k] != nil {
			delete(s.kept, k)
			dropped = append(dropped, k)
		}
	}
	return dropped
}

// due returns the answers whose time has come and that were asked for since they
// were signed, and forgets those that nobody asked for.
func (s *shard) due(now time.Time) []key {
	s.mu.Lock()
	defer s.mu.Unlock()
	var due []key
	for k, v := range s.kept {
		switch {
		case !v.due(now):
		case v.asked.Load() > v.thisUpdate:
			due = append(due, k)
		case !v.fresh(now):
			delete(s.kept, k)
		}
	}
	return due
}
