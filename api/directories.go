package api

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"time"

	"hufu/api/client"
	"hufu/jobs"
	"hufu/ldapsync"
	"hufu/store"
)

// maxDifferences is how many differences a job names one by one; it counts all.
const maxDifferences = 1000

func (s *Server) directories(c *call) (*answer, error) {
	page := client.Page[client.Directory]{Items: []client.Directory{}}
	if s.cfg.Publisher != nil {
		for _, d := range s.cfg.Publisher.Status(c.Context()) {
			page.Items = append(page.Items, wireDirectory(&d))
		}
	}
	return reply(http.StatusOK, page)
}

func wireDirectory(d *ldapsync.DirectoryStatus) client.Directory {
	return client.Directory{
		Name: d.Name, URL: d.URL, State: d.State, Epoch: d.Epoch, Watermark: d.Watermark, Time: d.Time, Entries: d.Entries,
		From: d.From, Applied: d.Applied, Head: d.Head, LagChanges: d.LagChanges, LagSeconds: d.LagSeconds, Unknown: d.Unknown, Repairs: d.Repairs,
		Lateness: [...]string{ldapsync.InTime: "in time", ldapsync.Late: "late", ldapsync.Alarming: "alarming"}[d.Level],
		Missed:   d.Missed, Alarms: d.Alarms, LastError: d.LastError, ErrorTime: d.ErrorTime, Notice: d.Notice, NoticeTime: d.NoticeTime,
	}
}

func (s *Server) diffDirectory(c *call) (*answer, error)   { return s.startWithDirectory(c, JobDiff) }
func (s *Server) repairDirectory(c *call) (*answer, error) { return s.startWithDirectory(c, JobRepair) }

// startWithDirectory starts a job with the directory that the path names.
func (s *Server) startWithDirectory(c *call, kind string) (*answer, error) {
	name := c.PathValue("name")
	if s.cfg.Publisher != nil {
		for _, d := range s.cfg.Publisher.Status(c.Context()) {
			if d.Name == name {
				return s.startJob(c, kind, name)
			}
		}
	}
	return nil, remedied(kindNotFound, "hufu dir status lists the directories of this node.", "this node has no directory %q", name)
}

// directoryJob compares a directory with the book, or repairs it. It leaves one
// item, whose result is a client.DirectoryDiff. Both may be done twice.
func directoryJob(work func(ctx context.Context, name, actor string, progress func(done, total int64)) (*client.DirectoryDiff, error)) jobs.Func {
	return func(ctx context.Context, r *jobs.Run) error {
		var name string
		if err := json.Unmarshal(r.Args, &name); err != nil {
			return fmt.Errorf("reading the name of the directory: %w", err)
		}
		var told time.Time
		var lost error
		d, err := work(ctx, name, r.Actor, func(done, total int64) {
			// Each record of progress is a write: one a second tells enough.
			if time.Since(told) >= time.Second && lost == nil {
				told = time.Now()
				lost = r.Progress(ctx, done, total)
			}
		})
		if err = errors.Join(err, lost); err != nil {
			return err
		}
		result, err := json.Marshal(d)
		if err != nil {
			return err
		}
		if err := r.Save(ctx, nil, jobs.Item{Name: name, OK: true, Result: result}); err != nil {
			return err
		}
		return r.Progress(ctx, d.Entries, d.Entries)
	}
}

func diffJob(p *ldapsync.Publisher) jobs.Func {
	return directoryJob(func(ctx context.Context, name, _ string, progress func(done, total int64)) (*client.DirectoryDiff, error) {
		d, err := p.Diff(ctx, name, progress)
		if err != nil {
			return nil, err
		}
		return wireDiff(d, d.Differences), nil
	})
}

func repairJob(p *ldapsync.Publisher) jobs.Func {
	return directoryJob(func(ctx context.Context, name, actor string, progress func(done, total int64)) (*client.DirectoryDiff, error) {
		r, err := p.Repair(ctx, name, actor, progress)
		if err != nil {
			return nil, err
		}
		w := wireDiff(r.Diff, r.Left)
		w.Repaired, w.Removed, w.Left = r.Repaired, r.Removed, len(r.Left)
		return w, nil
	})
}

// wireDiff renders a comparison with the differences to be named.
func wireDiff(d *ldapsync.Diff, name []ldapsync.Difference) *client.DirectoryDiff {
	n := d.Counts()
	w := &client.DirectoryDiff{
		Directory: d.Directory, Epoch: d.Epoch, Watermark: d.Watermark, Entries: d.Entries, Expected: d.Expected, Buckets: d.Buckets,
		Missing: n[ldapsync.Missing], Altered: n[ldapsync.Altered], Foreign: n[ldapsync.Foreign], Behind: n[ldapsync.Behind],
		Seconds: d.Taken.Seconds(), Differences: []client.Difference{},
	}
	for _, x := range name[:min(len(name), maxDifferences)] {
		w.Differences = append(w.Differences, client.Difference{Entry: x.Name, Kind: x.Kind, Detail: x.Detail})
	}
	return w
}

func (s *Server) reach(c *call) (*answer, error) {
	wait, err := c.wait()
	if err != nil {
		return nil, err
	}
	serial, err := store.ParseSerial(c.PathValue("serial"))
	if err != nil {
		return nil, problemf(kindMalformed, "%q is not a serial number", c.PathValue("serial"))
	}
	if s.cfg.Publisher == nil {
		return nil, remedied(kindNotFound, "Ask a node that publishes to directories.", "this node has no directories")
	}
	status, places, err := s.cfg.Publisher.Reach(c.Context(), serial, wait)
	if err != nil {
		return nil, err
	}
	w := client.Reach{CA: status.CA, Serial: serial.String(), State: status.State.String(), Reason: status.Reason, Changed: status.Time,
		Everywhere: true, Places: []client.ReachedPlace{}}
	for _, p := range places {
		w.Everywhere = w.Everywhere && p.Served
		w.Places = append(w.Places, client.ReachedPlace{Where: p.Where, Kind: p.Kind, Served: p.Served, Answer: p.Answer, At: p.At, Seen: p.Seen,
			Seconds: p.Within.Seconds(), Error: p.Err})
	}
	return reply(http.StatusOK, w)
}

// checkpointKey gives the public key that checkpoints and the statements in
// directories are checked with.
func (s *Server) checkpointKey(*call) (*answer, error) {
	if s.cfg.Checkpoint == nil {
		return nil, remedied(kindNotFound, "Ask a node whose token holds the checkpoint key.", "this node has no key to sign checkpoints with")
	}
	der, err := x509.MarshalPKIXPublicKey(s.cfg.Checkpoint.Public())
	if err != nil {
		return nil, err
	}
	return &answer{status: http.StatusOK, media: client.MediaNote, body: pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})}, nil
}
