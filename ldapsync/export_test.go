package ldapsync

import "github.com/go-ldap/ldap/v3"

// NameOf writes the name of a certificate's entry below base, and reads it back.
func NameOf(ca, serial, base string) (dn, backCA, backSerial, normalised string, err error) {
	t := target{ca: ca}
	copy(t.serial[:], serial)
	dn = t.name() + "," + base
	parsed, err := ldap.ParseDN(dn)
	if err != nil {
		return dn, "", "", "", err
	}
	b, err := ldap.ParseDN(base)
	if err != nil {
		return dn, "", "", "", err
	}
	back, _ := targetAt(parsed, b)
	normalised, err = nameBelow(dn, b)
	return dn, back.ca, string(back.serial[:]), normalised, err
}

// Clone is for the test that copies do not touch each other.
func (t *Tree) Clone() *Tree { return t.clone() }
