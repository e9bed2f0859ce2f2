package policy

// CheckKey judges a SubjectPublicKeyInfo: form, size, curve or exponent, known
// weaknesses, the lists given, and, unless p is nil, that the profile takes a
// key of this kind.
func CheckKey(spki []byte, p *Profile, lists ...*KeyList) error {
	return &Violation{Rule: "key", Detail: "not built"}
}

// CheckKeySize does only what costs nothing, before a signature by the key is
// checked.
func CheckKeySize(spki []byte) (KeyKind, error) {
	return "", &Violation{Rule: "key", Detail: "not built"}
}
