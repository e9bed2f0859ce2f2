package api

import (
	"context"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"hufu/api/client"
	"hufu/ca"
	"hufu/jobs"
	"hufu/store"
)

// metrics counts what goes through the door, and looks at the book, the
// directories and the jobs when it is read. No label holds a serial number, a
// reader or a person.
type metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	refused  *prometheus.CounterVec
}

func newMetrics(s *Server) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hufu_requests_total", Help: "Requests answered, by route and HTTP status.",
		}, []string{"route", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "hufu_request_seconds", Help: "Time to answer a request, by route.", Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 10, 60},
		}, []string{"route"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hufu_strangers_refused_total", Help: "Connections and requests of peers that the book does not know, by what refused them.",
		}, []string{"by"}),
	}
	m.registry.MustRegister(m.requests, m.seconds, m.refused, &world{s},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *metrics) observe(rt *route, status int, took time.Duration) {
	m.requests.WithLabelValues(rt.ID, strconv.Itoa(status)).Inc()
	m.seconds.WithLabelValues(rt.ID).Observe(took.Seconds())
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{DisableCompression: true})
}

// metricsPage answers on the door, always in the one format that the document
// promises.
func (s *Server) metricsPage(c *call) (*answer, error) {
	r := c.Request.Clone(c.Context())
	r.Header.Del("Accept")
	return &answer{status: http.StatusOK, media: client.MediaMetrics, stream: func(io.Writer) error {
		s.metrics.handler().ServeHTTP(c.w, r)
		return nil
	}}, nil
}

// world is what is looked at when the metrics are read.
type world struct{ s *Server }

var (
	headDesc       = prometheus.NewDesc("hufu_journal_head", "Sequence number of the newest journal event.", nil, nil)
	epochDesc      = prometheus.NewDesc("hufu_book_epoch", "Epoch of the book.", nil, nil)
	lagChangesDesc = prometheus.NewDesc("hufu_directory_lag_changes", "Journal events that a directory does not show yet.", []string{"directory"}, nil)
	lagSecondsDesc = prometheus.NewDesc("hufu_directory_lag_seconds", "Age of the oldest journal event that a directory does not show yet.", []string{"directory"}, nil)
	repairsDesc    = prometheus.NewDesc("hufu_directory_repairs", "Entries of a directory that were put right.", []string{"directory"}, nil)
	crlDesc        = prometheus.NewDesc("hufu_crl_next_update_seconds", "Time until the newest CRL of a kind must have a successor; below 0 it is past.", []string{"ca", "shard", "kind"}, nil)
	endingDesc     = prometheus.NewDesc("hufu_crls_ending", "CRLs that run out soon: less than a quarter of their life is left, or less than 30 days.", nil, nil)
	missedDesc     = prometheus.NewDesc("hufu_directory_missed_total", "Times that a directory missed a bound, by which: late (normally kept) or alarming.", []string{"directory", "bound"}, nil)
	lateDesc       = prometheus.NewDesc("hufu_directory_lateness", "0: in time; 1: the directory misses its bound; 2: it misses its alarm bound.", []string{"directory"}, nil)
	escrowDesc     = prometheus.NewDesc("hufu_escrow_keys", "Encryption keys that the key management centre keeps, by state.", []string{"state"}, nil)
	jobsDesc       = prometheus.NewDesc("hufu_jobs", "Jobs among the newest thousand, by state.", []string{"state"}, nil)
)

// Describe implements prometheus.Collector.
func (w *world) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{headDesc, epochDesc, lagChangesDesc, lagSecondsDesc, repairsDesc, missedDesc, lateDesc, crlDesc, endingDesc, escrowDesc, jobsDesc} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (w *world) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), probeTime)
	defer cancel()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	if tree, err := w.s.cfg.Book.Tree(ctx); err == nil {
		gauge(headDesc, float64(tree.Size))
	}
	gauge(epochDesc, float64(w.s.cfg.Book.Epoch()))
	if w.s.cfg.Publisher != nil {
		for _, d := range w.s.cfg.Publisher.Status(ctx) {
			gauge(lagChangesDesc, float64(d.LagChanges), d.Name)
			gauge(lagSecondsDesc, d.LagSeconds, d.Name)
			gauge(repairsDesc, float64(d.Repairs), d.Name)
			gauge(lateDesc, float64(d.Level), d.Name)
			for bound, n := range map[string]int64{"late": d.Missed, "alarming": d.Alarms} {
				ch <- prometheus.MustNewConstMetric(missedDesc, prometheus.CounterValue, float64(n), d.Name, bound)
			}
		}
	}
	w.collectCRLs(ctx, gauge)
	if w.s.cfg.Escrow != nil {
		if n, err := w.s.cfg.Escrow.Status(ctx); err == nil {
			for state, count := range map[string]uint64{"spare": n.Spare, "wanted": n.Wanted, "claimed": n.Claimed, "in-use": n.InUse, "history": n.History} {
				gauge(escrowDesc, float64(count), state)
			}
		}
	}
	if list, _, err := w.s.cfg.Jobs.List(ctx, "", nil, maxLimit); err == nil {
		count := map[string]float64{jobs.Queued: 0, jobs.Running: 0, jobs.Done: 0, jobs.Failed: 0, jobs.Cancelled: 0}
		for _, j := range list {
			count[j.State]++
		}
		for state, n := range count {
			gauge(jobsDesc, n, state)
		}
	}
}

// collectCRLs tells when each list ends.
func (w *world) collectCRLs(ctx context.Context, gauge func(*prometheus.Desc, float64, ...string)) {
	var all []*store.CRL
	err := w.s.cfg.Book.View(ctx, func(tx *store.Tx) (err error) {
		all, err = ca.Lists(tx)
		return err
	})
	if err != nil {
		return // what is missing is seen; the log has it from those who need the book
	}
	ending := 0.0
	for _, c := range all {
		kind := "full"
		if c.Delta {
			kind = "delta"
		}
		gauge(crlDesc, time.Until(c.NextUpdate).Seconds(), c.CA, strconv.Itoa(int(c.Shard)), kind)
		if ca.Ending(c, time.Now()) {
			ending++
		}
	}
	gauge(endingDesc, ending)
}
