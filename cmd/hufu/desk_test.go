package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/rogpeppe/go-internal/testscript"

	"hufu/examples/reader/device"
	"hufu/readers/apdu"
)

// racks are the simulated readers of each script, by its folder.
var racks sync.Map

type rack struct {
	readers *device.Rack
	stop    func()
}

// readerRack is a rack of simulated readers:
//
//	rack make N        makes readers 5000001 and so on, and manifest.csv
//	rack bench [CUTS]  offers them at $BENCH; CUTS is what device.ParseCuts reads: where each reader's power goes once
func readerRack(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: rack make N, or rack bench [CUTS]")
	}
	if v, ok := racks.Load(ts.MkAbs(".")); ok {
		v.(*rack).stop()
	}
	r := &rack{stop: func() {}}
	var err error
	r.readers, err = device.OpenRack(ts.MkAbs("rack"))
	ts.Check(err)
	switch args[0] {
	case "make":
		defer r.readers.Close()
		n, err := strconv.Atoi(args[1])
		ts.Check(err)
		ts.Check(r.make(n, ts.MkAbs("manifest.csv")))
	case "bench":
		if len(args) > 1 {
			cuts, err := device.ParseCuts(args[1])
			ts.Check(err)
			r.readers.Cuts = &device.Cuts{At: cuts}
		}
		address, err := r.serve()
		ts.Check(err)
		racks.Store(ts.MkAbs("."), r)
		ts.Defer(r.stop)
		ts.Setenv("BENCH", address)
	}
}

// make makes readers and the manifest that names them.
func (r *rack) make(n int, path string) error {
	var b strings.Builder
	b.WriteString("number,model,firmware,approval,csr\n")
	for i := range n {
		s := device.Spec{Number: strconv.Itoa(5000001 + i), Model: "XF-100", Firmware: "1.2.0", Approval: "CN-17"}
		reader, err := r.readers.New(s)
		if err != nil {
			return err
		}
		command, err := (&apdu.Command{INS: apdu.MakeDevice}).Encode()
		if err != nil {
			return err
		}
		raw, err := reader.Answer(command)
		reader.Close()
		if err != nil {
			return err
		}
		a, err := apdu.ParseAnswer(raw)
		if err != nil || a.Status != apdu.OK {
			return fmt.Errorf("making the device key of reader %s: %v", s.Number, err)
		}
		fmt.Fprintf(&b, "%s,%s,%s,%s,%s\n", s.Number, s.Model, s.Firmware, s.Approval, base64.StdEncoding.EncodeToString(a.Data))
	}
	return os.WriteFile(path, []byte(b.String()), 0o600)
}

// serve offers the readers until stop.
func (r *rack) serve() (address string, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.readers.Bench(func(error) {}).Serve(ctx, l) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		<-ended
		r.readers.Close()
	})
	return l.Addr().String(), nil
}
