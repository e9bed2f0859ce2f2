// Command bare is the limit of an OCSP responder: an HTTP handler that reads a
// request and returns the answer that was made for it before.
//
//	bare FILE
//
// FILE is a JSON list of {"request", "answer"}. It prints its address and serves
// until its standard input ends.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
)

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "bare: error:", err)
		os.Exit(1)
	}
}

func run(file string) error {
	raw, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var pairs []struct{ Request, Answer []byte }
	if err := json.Unmarshal(raw, &pairs); err != nil {
		return err
	}
	answers := make(map[string][]byte)
	lengths := make(map[string][]string)
	for _, p := range pairs {
		answers[string(p.Request)] = p.Answer
		lengths[string(p.Request)] = []string{strconv.Itoa(len(p.Answer))}
	}
	media := []string{"application/ocsp-response"}
	handler := func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength < 0 || r.ContentLength > 1<<16 {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		body := make([]byte, r.ContentLength)
		if _, err := io.ReadFull(r.Body, body); err != nil {
			return
		}
		w.Header()["Content-Type"] = media
		w.Header()["Content-Length"] = lengths[string(body)]
		w.Write(answers[string(body)])
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	go http.Serve(l, http.HandlerFunc(handler))
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}
