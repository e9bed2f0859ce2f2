package ldapsync

import (
	"bytes"
	_ "embed"
	"fmt"
	"strings"
)

// Schema is Hufu's LDAP schema as a file that slapd includes after its core schema.
//
//go:embed schema/hufu.schema
var Schema []byte

// SchemaLDIF returns the same schema for a slapd that keeps its configuration in cn=config: ldapadd -Y EXTERNAL -H ldapi:/// -f FILE.
func SchemaLDIF() []byte {
	var out bytes.Buffer
	out.WriteString("dn: cn=hufu,cn=schema,cn=config\nobjectClass: olcSchemaConfig\ncn: hufu\n")
	attributes := map[string]string{
		"objectidentifier": "olcObjectIdentifier", "attributetype": "olcAttributeTypes", "objectclass": "olcObjectClasses",
	}
	// A definition begins in the first column and goes on in lines that are indented.
	for _, block := range strings.Split(strings.ReplaceAll(string(Schema), "\n\t", " "), "\n") {
		word, rest, _ := strings.Cut(block, " ")
		if name := attributes[word]; name != "" {
			fmt.Fprintf(&out, "%s: %s\n", name, strings.Join(strings.Fields(rest), " "))
		}
	}
	return out.Bytes()
}
