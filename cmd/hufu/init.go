package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"hufu/ca"
	"hufu/hsm"
	"hufu/officers"
	"hufu/policy"
	"hufu/store"
	"hufu/store/bolt"
)

type initOptions struct {
	from   string
	admins []string
	out    string
}

func newInitCommand(g *globals) *cobra.Command {
	o := &initOptions{}
	c := &cobra.Command{
		Use:   "init",
		Short: "Begin a node's book from what the root ceremony made; works alone",
		Long: `Begin a node's book: take up the root's certificate and CRL and the working CAs'
certificates (FROM/root.cer, FROM/root.crl, FROM/<id>.cer), make the checkpoint
key, the centre's and the cities' signing keys in the token, certify the first two CA admins
and this node, and publish the first CRLs. It is done once in the life of a book.

The admins bring requests (hufu officer request); each gets OUT/<file>.pem and a
client configuration OUT/<file>.yaml.`,
		Example: "  hufu init -c hufu.yaml --from ceremony --admin 'Li Wei=li.csr' --admin 'Wang Fang=wang.csr' --out officers",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			conf, err := loadConfig(g.config)
			if err != nil {
				return err
			}
			return g.begin(cmd.Context(), cmd, conf, o)
		},
	}
	f := c.Flags()
	f.StringVar(&o.from, "from", "ceremony", "the `folder` with what the ceremony made")
	f.StringArrayVar(&o.admins, "admin", nil, "the two first CA admins, each as `NAME=REQUEST`")
	f.StringVar(&o.out, "out", "officers", "the `folder` for the admins' certificates")
	return c
}

// admin is one of the first two CA admins.
type admin struct {
	name, base string
	csr        []byte
}

// begin makes the book beside its final place and moves it there as the last
// act, so that an init that was interrupted is simply run again.
func (g *globals) begin(ctx context.Context, cmd *cobra.Command, conf *Config, o *initOptions) error {
	if _, err := os.Stat(conf.bookPath()); err == nil {
		return &hinted{err: fmt.Errorf("there is a book at %s already", conf.bookPath()), hint: "init is done once; to begin anew, move the old data folder away", code: exitConflict}
	}
	admins, err := readAdmins(cmd, o.admins)
	if err != nil {
		return err
	}
	cas, rootCRL, err := readCeremony(conf, o.from)
	if err != nil {
		return err
	}
	g.tell(cmd.ErrOrStderr(), "root certificate, SHA-256: %x", sha256.Sum256(cas[0].Certificate))
	if err := g.sure(cmd, g.say("taking up this root; compare the hash with the one read aloud at the ceremony"), "root"); err != nil {
		return err
	}
	for _, dir := range []string{conf.Data, conf.path("tls"), o.out} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("making %s: %w", dir, err)
		}
	}
	temp := conf.bookPath() + ".init"
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	n := &node{conf: conf, log: slog.New(slog.DiscardHandler)}
	defer n.close()
	if err := n.openKeys(ctx); err != nil {
		return err
	}
	engine, err := bolt.Open(temp, bolt.Options{})
	if err != nil {
		return err
	}
	if n.book, err = store.Create(ctx, store.Config{Engine: engine, Log: n.log, Tables: tables()}); err != nil {
		engine.Close()
		return fmt.Errorf("making the book: %w", err)
	}
	if err := n.furnish(ctx, cas, rootCRL, admins, o.out); err != nil {
		return err
	}
	if err := n.book.Close(); err != nil {
		return fmt.Errorf("closing the book: %w", err)
	}
	id := n.book.ID()
	n.book = nil
	if err := os.Rename(temp, conf.bookPath()); err != nil {
		return err
	}
	g.tell(cmd.OutOrStdout(), "book %s begun at %s", id, conf.bookPath())
	g.tell(cmd.OutOrStdout(), "admins' certificates and client configurations: %s", o.out)
	g.tell(cmd.OutOrStdout(), "give auditors %s and the first checkpoint %s", conf.path("checkpoint.pem"), conf.path("checkpoint-1.note"))
	g.tell(cmd.OutOrStdout(), "next: hufu serve -c %s", g.config)
	return nil
}

// furnish fills a new book. Everything but the CAs goes through the spine.
func (n *node) furnish(ctx context.Context, cas []*store.CA, rootCRL []byte, admins []admin, out string) error {
	if err := n.addCAs(ctx, cas, rootCRL); err != nil {
		return err
	}
	if err := n.openAuthority(ctx); err != nil {
		return err
	}
	var err error
	if n.checkpoint == nil {
		if n.checkpoint, err = keyLabelled(ctx, n.token, checkpointLabel, hsm.P256); err != nil {
			return err
		}
	}
	for _, a := range n.conf.CAs {
		if a.Kind == "city" {
			if err := n.certifyCity(ctx, a); err != nil {
				return err
			}
		}
		if a.Kind == "device" {
			if _, err := n.ticketSigner(ctx); err != nil {
				return err
			}
		}
	}
	for _, k := range n.keepers() {
		if err := k.renew(ctx); err != nil {
			return err
		}
	}
	if err := n.certifyAdmins(ctx, admins, out); err != nil {
		return err
	}
	for _, i := range n.issuers {
		if _, err := n.authority.PublishLists(ctx, i.CA().ID); err != nil {
			return fmt.Errorf("publishing the first CRL of CA %s: %w", i.CA().ID, err)
		}
	}
	note, err := n.book.Checkpoint(ctx, n.checkpoint)
	if err != nil {
		return fmt.Errorf("signing the first checkpoint: %w", err)
	}
	if err := replaceFile(n.conf.path("checkpoint-1.note"), note, 0o644); err != nil {
		return err
	}
	der, err := x509.MarshalPKIXPublicKey(n.checkpoint.Public())
	if err != nil {
		return err
	}
	return replaceFile(n.conf.path("checkpoint.pem"), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o644)
}

// addCAs records the root, its CRL and the working CAs in one transaction.
func (n *node) addCAs(ctx context.Context, cas []*store.CA, rootCRL []byte) error {
	list, err := x509.ParseRevocationList(rootCRL)
	if err != nil {
		return fmt.Errorf("parsing the root's CRL: %w", err)
	}
	return n.book.Update(ctx, func(tx *store.Tx) error {
		for _, c := range cas {
			c.Seq = tx.Append(store.Event{Kind: store.KindCAAdded, CA: c.ID, Actor: "init", Detail: c.SPKI.String()})
			if err := store.CAs.Insert(tx, c); err != nil {
				return err
			}
		}
		crl := &store.CRL{CA: "root", Number: list.Number.Uint64(), ThisUpdate: list.ThisUpdate, NextUpdate: list.NextUpdate,
			Size: int64(len(rootCRL)), Sum: store.Sum(rootCRL), Entries: len(list.RevokedCertificateEntries)}
		crl.Seq = tx.Append(store.Event{Kind: store.KindCRL, CA: "root", Actor: "init", Detail: crl.Sum.String()})
		return store.PutCRL(tx, crl, bytes.NewReader(rootCRL))
	})
}

// certifyCity gives a city its signing certificate; its key stays in the token.
func (n *node) certifyCity(ctx context.Context, a CAConfig) error {
	key, err := keyLabelled(ctx, n.token, citySignLabel(a.City), hsm.P256)
	if err != nil {
		return err
	}
	_, err = n.issueOwn(ctx, a.ID, "city-sign", key, policy.Name{City: a.City})
	return err
}

// keepers are the node's own TLS certificates: the server's, and the one that
// publishes to directories.
func (n *node) keepers() []*keeper {
	services, _ := n.conf.lineOf("services")
	own := func(name, profile string, dns ...string) *keeper {
		return &keeper{name: name, profile: profile, dns: dns, dir: n.conf.path("tls"), ca: services, book: n.book, authority: n.authority, now: time.Now, log: n.log}
	}
	all := []*keeper{own("node", "server", n.conf.API.Names...), own("publisher", "client", n.conf.Node+".publisher."+n.conf.Domain)}
	if n.conf.ACME != nil {
		all = append(all, own("acme", "server", n.conf.ACME.Name))
	}
	return all
}

// certifyAdmins issues the admins' certificates and records them as the first
// two officers.
func (n *node) certifyAdmins(ctx context.Context, admins []admin, out string) error {
	staff, err := n.conf.lineOf("staff")
	if err != nil {
		return err
	}
	roots := filepath.Join(out, "root.pem")
	if err := replaceFile(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: n.root.Certificate}), 0o644); err != nil {
		return err
	}
	var people [2]officers.Person
	for i, a := range admins {
		certs, err := n.authority.Issue(ctx, ca.Order{Requester: "init",
			Requests: []ca.Request{{CA: staff, Profile: "operator", CSR: a.csr, Name: policy.Name{Person: a.name}}}})
		if err != nil {
			return fmt.Errorf("certifying the admin %s: %w", a.name, err)
		}
		people[i] = officers.Person{Fingerprint: store.Sum(certs[0].DER), Name: a.name, Roles: []policy.Role{policy.CAAdmin}, Certificate: certs[0].DER}
		authority, err := caRecord(ctx, n.book, certs[0].CA)
		if err != nil {
			return err
		}
		if err := writeIdentity(filepath.Join(out, a.base), n.conf, authority, certs[0].DER); err != nil {
			return err
		}
	}
	err = n.book.Update(ctx, func(tx *store.Tx) error { return officers.New(officers.Config{Book: n.book}).Bootstrap(tx, people) })
	if err != nil {
		return fmt.Errorf("recording the first two admins: %w", err)
	}
	return nil
}

// writeIdentity writes base.pem and base.yaml; the key is base.key beside them.
func writeIdentity(base string, conf *Config, authority *store.CA, der []byte) error {
	var chain bytes.Buffer
	for _, d := range append([][]byte{der, authority.Certificate}, withoutRoot(authority.Chain)...) {
		chain.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: d}))
	}
	if err := replaceFile(base+".pem", chain.Bytes(), 0o644); err != nil {
		return err
	}
	_, port, _ := strings.Cut(conf.API.Listen, ":")
	name := filepath.Base(base)
	y, err := yaml.Marshal(ClientConfig{Server: "https://" + conf.API.Names[0] + ":" + port, Roots: "root.pem", Certificate: name + ".pem", Key: name + ".key"})
	if err != nil {
		return err
	}
	return replaceFile(base+".yaml", y, 0o644)
}

func readAdmins(cmd *cobra.Command, specs []string) ([]admin, error) {
	if len(specs) != 2 {
		return nil, usagef("two people: --admin 'Li Wei=li.csr' --admin 'Wang Fang=wang.csr'; hufu officer request makes the files", "init needs exactly two admins, not %d: no one person may begin a CA", len(specs))
	}
	var admins []admin
	for _, s := range specs {
		name, file, ok := strings.Cut(s, "=")
		if !ok || name == "" {
			return nil, usagef("write it as NAME=REQUEST", "--admin %q names no request", s)
		}
		csr, err := readDER(cmd, file, "CERTIFICATE REQUEST")
		if err != nil {
			return nil, err
		}
		base := strings.TrimSuffix(filepath.Base(file), filepath.Ext(file))
		admins = append(admins, admin{name: name, base: base, csr: csr})
	}
	if admins[0].name == admins[1].name || admins[0].base == admins[1].base || bytes.Equal(admins[0].csr, admins[1].csr) {
		return nil, usagef("two different people with two different keys", "the two admins are the same")
	}
	return admins, nil
}

// readCeremony reads and checks what the ceremony made; the root comes first.
func readCeremony(conf *Config, dir string) (cas []*store.CA, rootCRL []byte, err error) {
	root, err := readCert(filepath.Join(dir, "root.cer"))
	if err != nil {
		return nil, nil, err
	}
	if err := root.CheckSignatureFrom(root); err != nil {
		return nil, nil, damagedf("bring the ceremony's output again", "%s is not a self-signed root: %v", filepath.Join(dir, "root.cer"), err)
	}
	if strings.Contains(root.Subject.CommonName, "REHEARSAL") {
		return nil, nil, usagef("hold the ceremony itself: hufu ceremony run", "%s was made in a rehearsal, and its key is gone", filepath.Join(dir, "root.cer"))
	}
	if rootCRL, err = os.ReadFile(filepath.Join(dir, "root.crl")); err != nil {
		return nil, nil, usagef("bring root.crl from the ceremony", "reading the root's CRL: %v", err)
	}
	list, err := x509.ParseRevocationList(rootCRL)
	if err == nil {
		err = list.CheckSignatureFrom(root)
	}
	if err != nil {
		return nil, nil, damagedf("bring root.crl from the ceremony", "the root's CRL does not verify: %v", err)
	}
	if time.Now().After(list.NextUpdate) {
		return nil, nil, damagedf("sign a new CRL with the root: hufu ceremony run", "the root's CRL ended on %s", when(list.NextUpdate))
	}
	cas = append(cas, &store.CA{ID: "root", Line: "root", Generation: 1, Kind: "root", Suite: "intl", Certificate: root.Raw,
		SPKI: store.Sum(root.RawSubjectPublicKeyInfo), State: "active"})
	for _, a := range conf.CAs {
		cert, err := readCert(filepath.Join(dir, a.ID+".cer"))
		if err != nil {
			return nil, nil, err
		}
		if err := cert.CheckSignatureFrom(root); err != nil {
			return nil, nil, damagedf("bring the certificate that the ceremony made", "the certificate of CA %s is not signed by the root: %v", a.ID, err)
		}
		cas = append(cas, &store.CA{ID: a.ID, Line: a.ID, Generation: 1, Kind: a.Kind, City: a.City, Suite: "intl", Certificate: cert.Raw,
			Chain: [][]byte{root.Raw}, SPKI: store.Sum(cert.RawSubjectPublicKeyInfo), State: "active", KeyURI: conf.Token.URI + ";object=" + a.Key})
	}
	return cas, rootCRL, nil
}

func readCert(path string) (*x509.Certificate, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, usagef("bring the ceremony's output, or name its folder with --from", "reading a certificate: %v", err)
	}
	if block, _ := pem.Decode(raw); block != nil {
		raw = block.Bytes
	}
	c, err := x509.ParseCertificate(raw)
	if err != nil {
		return nil, usagef("bring the ceremony's output again", "%s: %v", path, err)
	}
	return c, nil
}
