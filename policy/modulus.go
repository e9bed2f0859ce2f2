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

// fermat reports whether n is a difference of two squares close to its root.
func fermat(n *big.Int) bool {
	var b, root, square big.Int
	a := new(big.Int).Sqrt(n)
	if square.Mul(a, a).Cmp(n) == 0 {
		return true
	}
	a.Add(a, big.NewInt(1))
	for range fermatRounds {
		b.Sub(b.Mul(a, a), n)
		// Squares end in one of 12 of 64 ways, which spares most of the roots.
		if squareEndings>>(b.Bits()[0]&63)&1 == 1 {
			root.Sqrt(&b)
			if square.Mul(&root, &root).Cmp(&b) == 0 {
				return true
			}
		}
		a.Add(a, big.NewInt(1))
	}
	return false
}

// squareEndings has bit x set where x is a square modulo 64.
const squareEndings = 1<<0 | 1<<1 | 1<<4 | 1<<9 | 1<<16 | 1<<17 | 1<<25 | 1<<33 | 1<<36 | 1<<41 | 1<<49 | 1<<57
