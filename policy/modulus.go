package policy

import (
	"math/big"
	"sync"
)

// smallPrimes are the odd primes below 752, the bound of the CA/Browser Forum's
// Baseline Requirements, Section 6.1.6.
var smallPrimes = sync.OnceValue(func() []int64 {
	var primes []int64
	for n := int64(3); n < 752; n += 2 {
		prime := true
		for _, p := range primes {
			if n%p == 0 {
				prime = false
				break
			}
		}
		if prime {
			primes = append(primes, n)
		}
	}
	return primes
})

// smallProduct is the product of the small primes.
var smallProduct = sync.OnceValue(func() *big.Int {
	product := big.NewInt(1)
	for _, p := range smallPrimes() {
		product.Mul(product, big.NewInt(p))
	}
	return product
})

// checkModulus refuses moduli whose factors can be found. Its size was found
// good before.
func checkModulus(modulus []byte) error {
	n := new(big.Int).SetBytes(modulus)
	if n.Bit(0) == 0 {
		return keyViolation("key-even", "NIST SP 800-56B, Section 6.4.3", "the RSA modulus is even: make a new key")
	}
	if new(big.Int).GCD(nil, nil, n, smallProduct()).Cmp(big.NewInt(1)) != 0 {
		return keyViolation("key-factor", "NIST SP 800-56B, Section 6.4.3", "the RSA modulus has a factor below 752: make a new key")
	}
	if roca(n) {
		return keyViolation("key-roca", "CVE-2017-15361", "the RSA modulus has the fingerprint of the broken ROCA generator: make the key with other software or another token")
	}
	if fermat(n) {
		return keyViolation("key-fermat", "CVE-2022-26320", "the two primes of the RSA modulus lie so close together that Fermat's method finds them: make the key with other software")
	}
	return nil
}

// rocaPrimes are the primes by which ROCA moduli are told: those up to 167 modulo
// which the powers of 65537 are not everything.
//
// Keys of the broken generator have primes k·M + (65537^a mod M) with M the
// product of the first primes, so that modulo each of these the modulus is a
// power of 65537 (Nemec et al., "The Return of Coppersmith's Attack", Section 3).
// A sound modulus passes all of them by chance once in 2^27 keys or so.
var rocaPrimes = sync.OnceValue(func() []rocaPrime {
	var list []rocaPrime
	for _, p := range smallPrimes() {
		if p > 167 {
			break
		}
		powers := make([]bool, p)
		count := int64(0)
		for x := int64(1); !powers[x]; x = x * 65537 % p {
			powers[x] = true
			count++
		}
		if count < p-1 {
			list = append(list, rocaPrime{big.NewInt(p), powers})
		}
	}
	return list
})

type rocaPrime struct {
	p      *big.Int
	powers []bool // by residue: is it a power of 65537
}

func roca(n *big.Int) bool {
	var r big.Int
	for _, prime := range rocaPrimes() {
		if !prime.powers[r.Mod(n, prime.p).Int64()] {
			return false
		}
	}
	return true
}

// fermatRounds bounds the search. The keys found in the field fell in the first.
const fermatRounds = 100

// fermat reports whether n = a² - b² with a close to the root of n.
func fermat(n *big.Int) bool {
	var b, root, square big.Int
	a := new(big.Int).Sqrt(n)
	if square.Mul(a, a).Cmp(n) == 0 {
		return true
	}
	// Remainders tell most numbers that are no squares, which spares the roots.
	modulus := big.NewInt(64 * 63 * 65 * 11)
	nr, ar := new(big.Int).Mod(n, modulus).Int64(), new(big.Int).Mod(a, modulus).Int64()
	for k := int64(1); k <= fermatRounds; k++ {
		if r := (ar+k)*(ar+k) - nr; !maybeSquare(r) {
			continue
		}
		b.Add(a, big.NewInt(k))
		b.Sub(b.Mul(&b, &b), n)
		root.Sqrt(&b)
		if square.Mul(&root, &root).Cmp(&b) == 0 {
			return true
		}
	}
	return false
}

// squares has, for four moduli, the remainders that squares have.
var squares = sync.OnceValue(func() [][]bool {
	var tables [][]bool
	for _, m := range []int{64, 63, 65, 11} {
		table := make([]bool, m)
		for x := range m {
			table[x*x%m] = true
		}
		tables = append(tables, table)
	}
	return tables
})

// maybeSquare reports whether a number that leaves the remainder r modulo
// 64·63·65·11 can be a square.
func maybeSquare(r int64) bool {
	for _, table := range squares() {
		m := int64(len(table))
		if !table[(r%m+m)%m] {
			return false
		}
	}
	return true
}
