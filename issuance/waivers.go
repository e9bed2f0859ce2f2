package issuance

import "slices"

// A Waiver excuses the certificates of this house from one rule of zlint, for a
// reason that somebody can check.
type Waiver struct {
	Lint   string
	Reason string
}

// Waivers is the whole list: rules for the public web, whose trust this
// hierarchy does not seek.
var Waivers = []Waiver{
	{"e_invalid_ca_certificate_policies", "CABF BR 7.1.2.10.5: the reserved policy identifiers claim validation by the Forum's rules; ours are in our own arc"},
	{"e_dnsname_not_valid_tld", "CABF BR 7.1.4.2.1: servers inside the house and in examples have names that no public registry holds"},
	{"e_sub_cert_locality_name_must_appear", "CABF BR 7.1.4.2.2: the organisation is the hierarchy's own, a place says nothing more"},
	{"e_sub_cert_province_must_appear", "CABF BR 7.1.4.2.2: as the locality"},
	{"w_sub_cert_aia_contains_internal_names", "CABF BR 7.1.2.7.7: the responder of a closed network has a name inside it"},
	{"w_ext_subject_key_identifier_not_recommended_subscriber", "CABF BR 7.1.2.7.6: RFC 5280, Section 4.2.1.2 says SHOULD; the book and the readers find certificates by it"},
	{"w_subject_common_name_included", "CABF BR 7.1.4.2.2: people and older card systems look at the common name; it repeats the dNSName"},
}

func waived(name string) bool {
	return slices.ContainsFunc(Waivers, func(w Waiver) bool { return w.Lint == name })
}
