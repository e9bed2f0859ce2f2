package ldapsync

import _ "embed"

// Schema is Hufu's LDAP schema as a file that slapd includes after its core schema.
//
//go:embed schema/hufu.schema
var Schema []byte

// SchemaLDIF returns the same schema as an entry below cn=schema,cn=config.
func SchemaLDIF() []byte { return nil }
