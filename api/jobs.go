package api

import (
	"context"
	"errors"
	"net/http"

	"hufu/api/client"
	"hufu/issuance/escrow"
	"hufu/jobs"
	"hufu/ldapsync"
	"hufu/readers"
	"hufu/store"
)

// Kinds of jobs that the routes start.
const (
	JobBatch  = "reader.batch"
	JobMass   = "reader.mass"
	JobCheck  = "book.check"
	JobDiff   = "directory.diff"
	JobRepair = "directory.repair"
)

// Work is the functions of the jobs that the routes start, for jobs.Config.
func Work(book *store.Book, register *readers.Register, publisher *ldapsync.Publisher) map[string]jobs.Func {
	return map[string]jobs.Func{JobBatch: batchJob(register), JobMass: massJob(register), JobCheck: checkJob(book, register), JobDiff: diffJob(publisher), JobRepair: repairJob(publisher)}
}

var ofJob = city{words: "that of the job", find: func(s *Server, c *call) (string, error) {
	j, err := s.cfg.Jobs.Job(c.Context(), c.PathValue("id"))
	if err != nil {
		return "", err
	}
	return j.City, nil
}}

func wireJob(j *jobs.Job) client.Job {
	return client.Job{
		ID: j.ID, Kind: j.Kind, Actor: j.Actor, City: j.City, State: j.State, Done: j.Done, Total: j.Total,
		Failures: j.Failures, Items: j.Items, Error: j.Error, Created: j.Created, Updated: j.Updated, Version: j.Version,
	}
}

// startJob records a job and answers 202 with where to look at it.
func (s *Server) startJob(c *call, kind string, args any) (*answer, error) {
	return s.change(c, func(tx *store.Tx) (*answer, error) {
		j, err := s.cfg.Jobs.Start(tx, kind, args, c.caller.Name, c.city)
		if err != nil {
			return nil, err
		}
		a, err := reply(http.StatusAccepted, wireJob(j))
		if err == nil {
			a.location = "/v1/jobs/" + j.ID
		}
		return a, err
	})
}

func (s *Server) jobs(c *call) (*answer, error) {
	return list(c, func(after []byte, limit int) ([]*jobs.Job, []byte, error) {
		return s.cfg.Jobs.List(c.Context(), c.city, after, limit)
	}, wireJob)
}

func (s *Server) job(c *call) (*answer, error) {
	after, err := c.number("after", 0)
	if err != nil {
		return nil, err
	}
	wait, err := c.wait()
	if err != nil {
		return nil, err
	}
	j, err := s.cfg.Jobs.Wait(c.Context(), c.PathValue("id"), after, wait)
	if err != nil {
		return nil, err
	}
	return reply(http.StatusOK, wireJob(j))
}

func (s *Server) jobItems(c *call) (*answer, error) {
	return list(c, func(after []byte, limit int) ([]*jobs.Item, []byte, error) {
		return s.cfg.Jobs.Items(c.Context(), c.PathValue("id"), after, limit)
	}, wireItem)
}

func wireItem(i *jobs.Item) client.JobItem {
	return client.JobItem{N: i.N, Name: i.Name, OK: i.OK, Error: i.Error, Result: i.Result}
}

func (s *Server) cancelJob(c *call) (*answer, error) {
	return s.change(c, func(tx *store.Tx) (*answer, error) {
		j, err := s.cfg.Jobs.Cancel(tx, c.PathValue("id"), c.caller.Name)
		if err != nil {
			return nil, err
		}
		return reply(http.StatusOK, wireJob(j))
	})
}

func (s *Server) check(c *call) (*answer, error) { return s.startJob(c, JobCheck, nil) }

// checkJob checks the whole book, and then what only its owners understand.
func checkJob(book *store.Book, register *readers.Register) jobs.Func {
	return func(ctx context.Context, r *jobs.Run) error {
		var told int64
		var lost error
		err := book.Check(ctx, func(done, total int64) {
			// Each record of progress is a write: a hundred of them tell enough.
			if step := max(total/100, 1); done-told >= step && lost == nil {
				told = done
				lost = r.Progress(ctx, done, total)
			}
		})
		if err != nil {
			return err
		}
		if lost != nil {
			return lost
		}
		return errors.Join(register.Check(ctx), escrow.Check(ctx, book))
	}
}
