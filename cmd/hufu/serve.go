package main

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"hufu/api"
	"hufu/ca"
	"hufu/ca/responder"
	"hufu/ca/stepca"
	"hufu/hsm"
	"hufu/issuance/escrow"
	"hufu/jobs"
	"hufu/ldapsync"
	"hufu/officers"
	"hufu/policy"
	"hufu/readers"
	"hufu/readers/stage2"
	"hufu/store"
	"hufu/topup"
	"hufu/verify"
)

// graceful is how long a shutdown waits for requests under way.
const graceful = 15 * time.Second

func newServeCommand(g *globals) *cobra.Command {
	var ahead bool
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run the node: API, OCSP and CRLs, directories, ACME",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			conf, err := loadConfig(g.config)
			if err != nil {
				return err
			}
			log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
			err = serve(cmd.Context(), conf, log, ahead)
			if err == nil || errors.Is(err, context.Canceled) {
				log.Info("stopped")
				return nil
			}
			return err
		},
	}
	c.Flags().BoolVar(&ahead, "accept-directories-ahead", false, "serve although a directory knows changes that the book does not have; it is left as it is")
	return c
}

// serve wires the floors together and runs them until ctx ends. The order is
// that of the house: keys and book, authority, followers, services, doors.
func serve(ctx context.Context, conf *Config, log *slog.Logger, acceptAhead bool) error {
	n := &node{conf: conf, log: log}
	defer n.close()
	collectSeldom()
	log.Info("starting", "node", conf.Node, "version", version())
	if err := n.openKeys(ctx); err != nil {
		return err
	}
	if n.checkpoint == nil {
		return &hinted{err: errors.New("the token holds no checkpoint key"), hint: "it is made by hufu init; is token.uri the right token?", code: exitUnready}
	}
	var err error
	if n.book, err = openBook(ctx, conf, log); err != nil {
		return err
	}
	if err := n.openAuthority(ctx); err != nil {
		return err
	}
	for _, i := range n.issuers {
		if err := i.LintSamples(); err != nil {
			return fmt.Errorf("judging samples of CA %s: %w", i.CA().ID, err)
		}
	}
	closed, err := n.authority.Recover(ctx)
	if err != nil {
		return fmt.Errorf("closing the intents of the last run: %w", err)
	}
	if closed > 0 {
		log.Warn("closed intents that the last run left open", "intents", closed)
	}

	keepers := n.keepers()
	for _, k := range keepers {
		if err := k.take(ctx); err != nil {
			return err
		}
	}
	publisher, err := n.publisher(keepers[1])
	if err != nil {
		return err
	}
	if list := publisher.Ahead(ctx); len(list) > 0 && !acceptAhead {
		return aheadError(list)
	}
	verifier := &verify.Verifier{Anchors: [][]byte{n.root.Certificate}, Intermediates: n.intermediates(), Domain: conf.Domain, Status: verify.FromBook(n.book)}
	centre, err := n.centre(ctx, verifier)
	if err != nil {
		return err
	}
	office := officers.New(officers.Config{Book: n.book, Log: log})
	register := readers.New(readers.Config{Book: n.book, Authority: n.authority, Domain: conf.Domain, Log: log})
	loads, err := topup.New(topup.Config{Book: n.book, Verifier: verifier, Signer: n.citySigner, Log: log})
	if err != nil {
		return err
	}
	first := n.firstStage(register, verifier)
	second := stage2.New(stage2.Config{Book: n.book, Authority: n.authority, Register: register, Stage: first, Escrow: centre, Verifier: verifier, Log: log})
	funcs := api.Work(n.book, register, publisher)
	maps.Copy(funcs, first.Work())
	work := jobs.New(jobs.Config{Book: n.book, Node: conf.Node, Log: log, Funcs: funcs})
	status := responder.New(responder.Config{Book: n.book, Changed: n.book.Changed, Renew: n.responderKey, Log: log})
	server := api.New(api.Config{
		Book: n.book, Authority: n.authority, Office: office, Jobs: work, Readers: register, Stage1: first, Stage2: second, TopUp: loads, Escrow: centre, Publisher: publisher,
		Verifier: verifier, Checkpoint: n.checkpoint, MassAlone: conf.Mass.Alone, Probes: []api.Probe{{Name: "token", Check: n.tokenSigns}}, Node: conf.Node, Version: version(), Log: log,
	})

	doors := []door{
		{"api", conf.API.Listen, server.Door(keepers[0].server)},
		{"publish", conf.Publish.Listen, api.Bounded(status.Handler(), log)},
		{"ops", conf.Ops.Listen, api.Bounded(server.OpsHandler(), log)},
	}
	if conf.ACME != nil {
		acme, err := n.acmeDoor(keepers[2])
		if err != nil {
			return err
		}
		doors = append(doors, *acme)
	}
	// All doors open, or none: whoever finds one open finds the others.
	listeners := make([]net.Listener, len(doors))
	for i, d := range doors {
		if listeners[i], err = net.Listen("tcp", d.listen); err != nil {
			for _, l := range listeners[:i] {
				l.Close()
			}
			return &hinted{err: fmt.Errorf("opening the door %q: %w", d.name, err), hint: "another program holds the address, or it is not this machine's: see " + d.name + ".listen", code: exitUnready}
		}
		log.Info("door open", "door", d.name, "address", listeners[i].Addr().String())
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, run := range []func(context.Context) error{n.authority.Run, work.Run, publisher.Run, status.Run} {
		group.Go(func() error { return run(ctx) })
	}
	if centre != nil {
		group.Go(func() error { return centre.Run(ctx) })
	}
	for _, k := range keepers {
		group.Go(func() error { return k.Run(ctx) })
	}
	for i, d := range doors {
		group.Go(func() error { return d.serve(listeners[i]) })
		group.Go(func() error { return d.shutdown(ctx) })
	}
	log.Info("ready")
	return group.Wait()
}

// door is one listener with its server.
type door struct {
	name, listen string
	server       *http.Server
}

func (d *door) serve(l net.Listener) error {
	var err error
	if d.server.TLSConfig != nil {
		err = d.server.ServeTLS(l, "", "")
	} else {
		err = d.server.Serve(l)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serving the door %q: %w", d.name, err)
}

// shutdown lets requests under way end, for a while.
func (d *door) shutdown(ctx context.Context) error {
	<-ctx.Done()
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), graceful)
	defer cancel()
	if err := d.server.Shutdown(end); err != nil {
		return d.server.Close()
	}
	return nil
}

func aheadError(list []*ldapsync.AheadError) error {
	var lines []string
	from := ""
	for _, a := range list {
		lines = append(lines, a.Directory+": "+a.Reason)
		from += " --from-directory " + a.Directory
	}
	return &hinted{
		err: fmt.Errorf("directories know changes that this book does not have: %s", strings.Join(lines, "; ")),
		hint: "was an old backup restored, or the wrong book opened? Bring the newest backup back: hufu restore FILE.\n" +
			"Where there is none, this brings back what the directories know: hufu restore FILE" + from + "\n" +
			"hufu serve --accept-directories-ahead serves all the same; these directories stay as they are",
		code: exitDamaged,
	}
}

// centre is the key management centre, nil where the configuration has none.
func (n *node) centre(ctx context.Context, verifier *verify.Verifier) (*escrow.Escrow, error) {
	conf := n.conf.Escrow
	if conf == nil {
		return nil, nil
	}
	kind, err := escrow.ParseKind(conf.Kind)
	if err != nil {
		return nil, err
	}
	return escrow.New(ctx, escrow.Config{Book: n.book, Token: n.token, Wrapping: conf.Wrapping, Kind: kind, Spare: conf.Spare, Officers: conf.Recovery,
		Verifier: verifier, Log: n.log})
}

func (n *node) intermediates() [][]byte {
	var ders [][]byte
	for _, i := range n.issuers {
		ders = append(ders, i.Certificate())
	}
	return ders
}

// publisher makes the directories' publisher; each connection shows the node's
// publisher certificate.
func (n *node) publisher(k *keeper) (*ldapsync.Publisher, error) {
	var dirs []ldapsync.Directory
	for _, d := range n.conf.Directories {
		dir, err := n.directory(d, k)
		if err != nil {
			return nil, err
		}
		dirs = append(dirs, dir)
	}
	return ldapsync.New(ldapsync.Config{Book: n.book, Directories: dirs, Key: n.checkpoint, Node: n.conf.Node, Log: n.log})
}

func (n *node) directory(d DirectoryConfig, k *keeper) (ldapsync.Directory, error) {
	roots := x509.NewCertPool()
	if d.Roots != "" {
		var err error
		if roots, err = readRoots(d.Roots); err != nil {
			return ldapsync.Directory{}, err
		}
	} else {
		root, err := x509.ParseCertificate(n.root.Certificate)
		if err != nil {
			return ldapsync.Directory{}, err
		}
		roots.AddCert(root)
	}
	return ldapsync.Directory{Name: d.Name, URL: d.URL, StartTLS: d.StartTLS, Base: d.Base, InFlight: d.InFlight, Bound: d.Bound, Alarm: d.Alarm, Compare: d.Compare,
		TLS: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12, GetClientCertificate: k.client}}, nil
}

// responderKey makes a delegated OCSP responder: a fresh key that lives in the
// token as long as this connection to it, and a certificate of seven days. A
// token that was restarted has lost the key; the responder then asks again.
func (n *node) responderKey(ctx context.Context, caID string) ([]byte, crypto.Signer, error) {
	key, err := n.token.Generate(ctx, hsm.KeySpec{Label: "ocsp-" + caID, Kind: hsm.P256, Use: hsm.Sign, Session: true})
	if err != nil {
		return nil, nil, fmt.Errorf("making the responder's key: %w", err)
	}
	certs, err := n.issueOwn(ctx, caID, "ocsp", key, policy.Name{})
	if err != nil {
		return nil, nil, err
	}
	return certs.DER, key, nil
}

// issueOwn certifies a key of this node.
func (n *node) issueOwn(ctx context.Context, caID, profile string, key crypto.Signer, name policy.Name) (*store.Certificate, error) {
	csr, err := request(key)
	if err != nil {
		return nil, err
	}
	certs, err := n.authority.Issue(ctx, ca.Order{Requester: "node:" + n.conf.Node,
		Requests: []ca.Request{{CA: caID, Profile: profile, CSR: csr, Name: name}}})
	if err != nil {
		return nil, fmt.Errorf("issuing this node's %s certificate by CA %s: %w", profile, caID, err)
	}
	return certs[0], nil
}

// citySigner finds a city's key in the token and the newest good certificate
// for it in the book.
func (n *node) citySigner(ctx context.Context, city string) (topup.Signer, error) {
	key, err := n.token.KeyByLabel(ctx, citySignLabel(city))
	if err != nil {
		return topup.Signer{}, fmt.Errorf("finding the signing key of city %s: %w", city, err)
	}
	cert, authority, err := n.ownCertificate(ctx, key, "city-sign")
	if err != nil {
		return topup.Signer{}, fmt.Errorf("the signer of city %s: %w", city, err)
	}
	return topup.Signer{Certificate: cert.DER, Chain: append([][]byte{authority.Certificate}, withoutRoot(authority.Chain)...), Key: key}, nil
}

// tokenSigns is the readiness probe: the token answers with random octets.
func (n *node) tokenSigns(ctx context.Context) error {
	_, err := n.token.Random(ctx, 8)
	return err
}

// acmeDoor is smallstep's ACME server in front of the spine.
func (n *node) acmeDoor(k *keeper) (*door, error) {
	// Whoever answers http-01 for a name of the node itself, by a path through
	// some web server on the same machine, must not become the node.
	own := slices.DeleteFunc(append(slices.Clone(n.conf.API.Names), n.conf.ACME.Name), func(name string) bool { return slices.Contains(n.conf.ACME.Domains, name) })
	h, err := stepca.New(stepca.Config{
		Authority: n.authority, Book: n.book, CA: n.conf.ACME.CA, Name: n.conf.ACME.Name, Domains: n.conf.ACME.Domains, Denied: own,
		HTTPPort: n.conf.ACME.HTTPPort, Root: n.root.Certificate, Log: n.log,
	})
	if err != nil {
		return nil, fmt.Errorf("opening ACME: %w", err)
	}
	s := api.Bounded(h, n.log)
	s.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: k.server}
	return &door{"acme", n.conf.ACME.Listen, s}, nil
}

// version is the module's version, as the build recorded it.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
