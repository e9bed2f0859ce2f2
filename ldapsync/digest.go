package ldapsync

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"strings"

	"hufu/store"
)

// How anyone computes the digest of what a book has in a directory, with ldapsearch and SHA-256 alone:
//
//  1. Read all entries below the base that match (&(objectClass=hufuEntry)(hufuBook=ID)).
//  2. Name each by its DN without the base: RDNs in order, lower case, no spaces around the commas.
//  3. Keep its attributes whose names begin with "hufu", and userCertificate, cACertificate, certificateRevocationList and
//     deltaRevocationList, all in lower case, the last four with ";binary" at the end.
//  4. The digest of the entry is SHA-256 over: the name; the number of attributes; for each attribute in the order of their names, its
//     name, the number of its values, and the SHA-256 of each value, in order. A number is four octets, the highest first; a name is
//     its length as such a number, and its octets.
//  5. The first two octets of the SHA-256 of the name say in which of 65,536 buckets the entry lies. The digest of a bucket is SHA-256
//     over the digests of its entries, in order; that of a group is SHA-256 over the digests of the 256 buckets that share the first
//     octet; the digest of the whole is SHA-256 over those of the 256 groups.
//
// Two directories that hold the same have the same digest, whatever their base; and where they differ, 256 groups, 256 buckets and a
// few entries tell where.

// Attribute is an attribute of an entry with all of its values.
type Attribute struct {
	Type   string
	Values [][]byte
}

// Entry is an entry of a directory: its name below the base and those of its attributes that Hufu manages.
type Entry struct {
	Name       string
	Attributes []Attribute
}

// managed returns the name under which the digest covers an attribute, and whether it covers it at all.
func managed(attribute string) (string, bool) {
	name := strings.ToLower(attribute)
	if strings.HasPrefix(name, "hufu") {
		return name, true
	}
	// RFC 4523, Section 2: transferred as ";binary" only; but a server may leave that out in its answers.
	switch name = strings.TrimSuffix(name, ";binary"); name {
	case "usercertificate", "cacertificate", "certificaterevocationlist", "deltarevocationlist":
		return name + ";binary", true
	}
	return "", false
}

// Digest returns the digest of one entry. Attributes that Hufu does not manage are left out.
func (e *Entry) Digest() store.Hash {
	type field struct {
		name string
		sums []store.Hash
	}
	var fields []field
	for _, a := range e.Attributes {
		name, ok := managed(a.Type)
		if !ok || len(a.Values) == 0 {
			continue
		}
		f := field{name: name}
		for _, v := range a.Values {
			f.sums = append(f.sums, store.Sum(v))
		}
		slices.SortFunc(f.sums, compareHashes)
		fields = append(fields, f)
	}
	slices.SortFunc(fields, func(a, b field) int { return cmp.Compare(a.name, b.name) })

	buf := make([]byte, 0, 1024)
	number := func(n int) { buf = binary.BigEndian.AppendUint32(buf, uint32(n)) }
	text := func(s string) { number(len(s)); buf = append(buf, s...) }
	text(strings.ToLower(e.Name))
	number(len(fields))
	for _, f := range fields {
		text(f.name)
		number(len(f.sums))
		for _, sum := range f.sums {
			buf = append(buf, sum[:]...)
		}
	}
	return store.Sum(buf)
}

func compareHashes(a, b store.Hash) int { return bytes.Compare(a[:], b[:]) }

// Tree is the bucket tree over a set of entries. The zero value has none. It is not safe for concurrent use.
type Tree struct {
	buckets [256 * 256][]leaf
	sums    [256 * 256]store.Hash // of the buckets; as good as stale says
	groups  [256]store.Hash
	stale   map[uint16]bool // buckets that changed since Root; nil = all of them
	n       int64
}

// leaf is an entry. Half of the hash of its name tells it from all others, and saves a quarter of the memory.
type leaf struct {
	name   [16]byte
	digest store.Hash
}

// Len returns the number of entries.
func (t *Tree) Len() int64 { return t.n }

// Set adds an entry or replaces the digest that it had.
func (t *Tree) Set(name string, digest store.Hash) {
	sum := store.Sum([]byte(strings.ToLower(name)))
	at := binary.BigEndian.Uint16(sum[:2])
	key := [16]byte(sum[:16])
	old := t.buckets[at]
	i := slices.IndexFunc(old, func(l leaf) bool { return l.name == key })
	if i >= 0 && old[i].digest == digest {
		return
	}
	// A bucket is never changed in place, since a clone may share it.
	fresh := make([]leaf, len(old), len(old)+1)
	copy(fresh, old)
	if i < 0 {
		fresh = append(fresh, leaf{name: key})
		i = len(old)
		t.n++
	}
	fresh[i].digest = digest
	t.buckets[at] = fresh
	if t.stale != nil {
		t.stale[at] = true
	}
}

// Root returns the digest of the whole.
func (t *Tree) Root() store.Hash {
	if t.stale == nil {
		for at := range t.buckets {
			t.sums[at] = bucketSum(t.buckets[at])
		}
		for g := range t.groups {
			t.groups[g] = t.groupSum(g)
		}
	}
	dirty := map[int]bool{}
	for at := range t.stale {
		t.sums[at] = bucketSum(t.buckets[at])
		dirty[int(at)/256] = true
	}
	for g := range dirty {
		t.groups[g] = t.groupSum(g)
	}
	t.stale = map[uint16]bool{}
	return hashesSum(t.groups[:])
}

// clone returns a copy that shares the buckets until they change.
func (t *Tree) clone() *Tree {
	c := new(Tree)
	*c = *t
	if t.stale != nil {
		c.stale = make(map[uint16]bool, len(t.stale))
		for at := range t.stale {
			c.stale[at] = true
		}
	}
	return c
}

// Sums of what is empty, which in a small tree is nearly everything.
var (
	emptySum      = store.Sum(nil)
	emptyGroupSum = hashesSum(slices.Repeat([]store.Hash{emptySum}, 256))
)

func (t *Tree) groupSum(g int) store.Hash {
	sums := t.sums[g*256 : (g+1)*256]
	if !slices.ContainsFunc(sums, func(h store.Hash) bool { return h != emptySum }) {
		return emptyGroupSum
	}
	return hashesSum(sums)
}

func bucketSum(leaves []leaf) store.Hash {
	if len(leaves) == 0 {
		return emptySum
	}
	sums := make([]store.Hash, len(leaves))
	for i := range leaves {
		sums[i] = leaves[i].digest
	}
	slices.SortFunc(sums, compareHashes)
	return hashesSum(sums)
}

func hashesSum(hashes []store.Hash) (sum store.Hash) {
	h := sha256.New()
	for i := range hashes {
		h.Write(hashes[i][:])
	}
	h.Sum(sum[:0])
	return sum
}

// has says whether the tree has an entry with that digest.
func (t *Tree) has(name string, digest store.Hash) bool {
	sum := store.Sum([]byte(strings.ToLower(name)))
	for _, l := range t.buckets[binary.BigEndian.Uint16(sum[:2])] {
		if l.name == [16]byte(sum[:16]) {
			return l.digest == digest
		}
	}
	return false
}

// unequal returns the buckets in which two trees differ: groups with equal digests are not looked into.
func (t *Tree) unequal(other *Tree) (buckets []uint16) {
	if t.Root() == other.Root() {
		return nil
	}
	for g := range t.groups {
		if t.groups[g] == other.groups[g] {
			continue
		}
		for at := g * 256; at < g*256+256; at++ {
			if t.sums[at] != other.sums[at] {
				buckets = append(buckets, uint16(at))
			}
		}
	}
	return buckets
}
