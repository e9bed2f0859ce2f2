package stage1

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/csv"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"golang.org/x/text/encoding/simplifiedchinese"

	"hufu/issuance"
	"hufu/policy"
	"hufu/store"
)

// Bounds of a manifest.
const (
	MaxManifest = 64 << 20 // octets of the file
	MaxRows     = 100_000
	maxFaults   = 100 // that are told; the rest is counted
	maxField    = 8 << 10
)

// The encodings of a manifest; "" finds out.
const (
	UTF8    = "utf-8"
	GB18030 = "gb18030"
)

// Fault is one thing that is wrong with a manifest.
type Fault struct {
	Row    int    `json:"row"` // line of the file; 0 = the file as a whole
	Column string `json:"column,omitempty"`
	Value  string `json:"value,omitempty"`
	Reason string `json:"reason"`
	Remedy string `json:"remedy"`
}

// Faults says all that is wrong with a manifest: the first hundred of them, and how
// many there are.
type Faults struct {
	List  []Fault
	Total int
}

func (f *Faults) Error() string {
	first := f.List[0]
	where := fmt.Sprintf("line %d", first.Row)
	if first.Row == 0 {
		where = "the file"
	}
	if first.Column != "" {
		where += ", column " + first.Column
	}
	return fmt.Sprintf("the manifest has %d faults and nothing of it was taken; the first, %s: %s: %s", f.Total, where, first.Reason, first.Remedy)
}

func (f *Faults) add(row int, column, value, remedy, reason string, args ...any) {
	if f.Total++; len(f.List) == maxFaults {
		return
	}
	if runes := []rune(value); len(runes) > 60 {
		value = string(runes[:60]) + "…"
	}
	f.List = append(f.List, Fault{row, column, strings.ToValidUTF8(value, "�"), fmt.Sprintf(reason, args...), remedy})
}

// orNil is f as an error, where there are any.
func (f *Faults) orNil() error {
	if f.Total == 0 {
		return nil
	}
	slices.SortStableFunc(f.List, func(a, b Fault) int { return a.Row - b.Row })
	return f
}

// Sheet is a manifest that was read.
type Sheet struct {
	Encoding string
	Sum      store.Hash // of the file
	Rows     []Row
}

// Row is one reader on a manifest.
type Row struct {
	Number   string
	Manifest string
	Line     int // of the file
	Model    string
	Firmware string
	Approval string
	SPKI     []byte
	CSR      []byte `json:",omitempty"` // proves possession; without it the manifest vouches for the key
	Failed   string `json:",omitempty"` // why the reader was not certified
}

// columns are the headers that a manifest may have, by what they mean.
var columns = map[string]string{
	"number": "number", "编号": "number", "读卡器编号": "number",
	"model": "model", "型号": "model",
	"firmware": "firmware", "固件": "firmware", "固件版本": "firmware",
	"approval": "approval", "批准号": "approval",
	"key": "key", "public key": "key", "公钥": "key",
	"csr": "csr", "证书请求": "csr",
}

// needed are the columns without which there is no manifest.
var needed = []string{"number", "model", "firmware", "approval"}

// ReadManifest reads a maker's manifest and judges all that can be judged without a
// register: form, words, keys, requests, and what stands there twice. The error is
// *Faults; with it comes what could be read.
func ReadManifest(file []byte, encoding string) (*Sheet, error) {
	faults := &Faults{}
	sheet := readSheet(file, encoding, faults)
	return sheet, faults.orNil()
}

func readSheet(file []byte, encoding string, faults *Faults) *Sheet {
	sheet := &Sheet{Sum: store.Sum(file)}
	if len(file) > MaxManifest {
		faults.add(0, "", "", "split it into several manifests", "the file has %d octets, more than %d", len(file), MaxManifest)
		return sheet
	}
	text, encoding := decodeText(file, encoding, faults)
	sheet.Encoding = encoding
	if faults.Total > 0 {
		return sheet
	}
	r := csv.NewReader(bytes.NewReader(text))
	r.FieldsPerRecord, r.TrimLeadingSpace, r.ReuseRecord = -1, true, true
	head, err := r.Read()
	if err != nil {
		faults.add(1, "", "", "begin the file with the names of the columns: number, model, firmware, approval, and key or csr", "there is no line of headers: %v", csvFault(err))
		return sheet
	}
	places := readHeaders(head, faults)
	if faults.Total > 0 {
		return sheet
	}
	sheet.readRows(r, places, len(head), faults)
	sheet.judgeKeys(faults)
	sheet.judgeTwice(faults)
	return sheet
}

// decodeText turns the file into UTF-8 without a byte order mark.
func decodeText(file []byte, encoding string, faults *Faults) ([]byte, string) {
	bom := []byte("\xef\xbb\xbf")
	switch {
	case encoding != "" && encoding != UTF8 && encoding != GB18030:
		faults.add(0, "", encoding, "say utf-8 or gb18030, or nothing", "the encoding is not known")
		return nil, encoding
	case bytes.HasPrefix(file, []byte("\xff\xfe")) || bytes.HasPrefix(file, []byte("\xfe\xff")):
		faults.add(0, "", "", "save it as CSV UTF-8, or as GB18030", "the file is UTF-16")
		return nil, encoding
	case encoding != GB18030 && utf8.Valid(file):
		return bytes.TrimPrefix(file, bom), UTF8
	case encoding == UTF8:
		at := 0
		for at < len(file) {
			r, n := utf8.DecodeRune(file[at:])
			if r == utf8.RuneError && n == 1 {
				break
			}
			at += n
		}
		faults.add(1+bytes.Count(file[:at], []byte("\n")), "", "", "save it as UTF-8, or say that it is gb18030", "the file is not UTF-8 at octet %d", at)
		return nil, encoding
	}
	text, err := simplifiedchinese.GB18030.NewDecoder().Bytes(file)
	if at := bytes.IndexRune(text, utf8.RuneError); err != nil || at >= 0 {
		faults.add(1+bytes.Count(text[:max(at, 0)], []byte("\n")), "", "", "save it as CSV UTF-8, or as GB18030", "the file is neither UTF-8 nor GB18030")
		return nil, GB18030
	}
	return text, GB18030
}

// readHeaders finds the place of each column.
func readHeaders(head []string, faults *Faults) map[string]int {
	places := map[string]int{}
	for i, h := range head {
		name, ok := columns[strings.ToLower(strings.TrimSpace(h))]
		if !ok {
			faults.add(1, h, "", "take it out, or name it number, model, firmware, approval, key or csr (编号, 型号, 固件, 批准号, 公钥, 证书请求)", "there is no such column")
			continue
		}
		if _, twice := places[name]; twice {
			faults.add(1, h, "", "leave one of them", "the column stands there twice")
		}
		places[name] = i
	}
	for _, name := range needed {
		if _, ok := places[name]; !ok {
			faults.add(1, name, "", "add it", "the column is missing")
		}
	}
	_, key := places["key"]
	if _, csr := places["csr"]; !key && !csr {
		faults.add(1, "key", "", "add a column key with public keys, or csr with certificate requests", "the column is missing")
	}
	return places
}

// csvFault is the parser's reason without its own count of lines.
func csvFault(err error) error {
	var p *csv.ParseError
	if errors.As(err, &p) {
		return p.Err
	}
	if err == io.EOF {
		return errors.New("the file is empty")
	}
	return err
}

func (s *Sheet) readRows(r *csv.Reader, places map[string]int, width int, faults *Faults) {
	for {
		record, err := r.Read()
		if err == io.EOF {
			break
		}
		var p *csv.ParseError
		if errors.As(err, &p) {
			// After a quotation mark that does not fit nobody knows where a row ends.
			faults.add(p.StartLine, "", "", "put right the quotation marks of this row; what follows it was not read", "the row is not CSV: %v", p.Err)
			return
		}
		line, _ := r.FieldPos(0)
		switch {
		case len(record) == 1 && record[0] == "":
			continue
		case len(s.Rows) == MaxRows:
			faults.add(line, "", "", "split it into several manifests", "there are more than %d readers", MaxRows)
			return
		case len(record) != width:
			faults.add(line, "", "", "give every row as many fields as there are headers", "the row has %d fields, and there are %d headers", len(record), width)
			continue
		}
		s.Rows = append(s.Rows, readRow(record, places, line, faults))
	}
	if len(s.Rows) == 0 && faults.Total == 0 {
		faults.add(0, "", "", "bring the manifest that lists the readers", "there is no reader in the file")
	}
}

// readRow reads one row. Keys are judged later, by several at once.
func readRow(record []string, places map[string]int, line int, faults *Faults) Row {
	field := func(name string) string {
		i, ok := places[name]
		if !ok {
			return ""
		}
		return strings.Clone(strings.TrimSpace(record[i]))
	}
	row := Row{Number: field("number"), Line: line, Model: field("model"), Firmware: field("firmware"), Approval: field("approval")}
	if !validNumber(row.Number) {
		faults.add(line, "number", row.Number, "give 1 to 20 digits and lower-case letters; in a spreadsheet, format the column as text", "it is not a reader's number")
	}
	for _, w := range []struct{ column, word string }{{"model", row.Model}, {"firmware", row.Firmware}, {"approval", row.Approval}} {
		if fault := wordFault(w.word); fault != "" {
			faults.add(line, w.column, w.word, "give 1 to 64 octets that can be printed", "it %s", fault)
		}
	}
	key, csr := field("key"), field("csr")
	switch {
	case key != "" && csr != "":
		faults.add(line, "key", key, "leave one of them empty: the request holds its key", "the row has a key and a request")
	case key == "" && csr == "":
		faults.add(line, "key", "", "give the device's public key, or a certificate request made with it", "the row has neither key nor request")
	case key != "":
		if row.SPKI = binary(key); row.SPKI == nil {
			faults.add(line, "key", key, "write the SubjectPublicKeyInfo in base64 or hexadecimal, without the lines of PEM", "it is neither base64 nor hexadecimal")
		}
	default:
		if row.CSR = binary(csr); row.CSR == nil {
			faults.add(line, "csr", csr, "write the PKCS#10 request in base64 or hexadecimal, without the lines of PEM", "it is neither base64 nor hexadecimal")
		}
	}
	return row
}

// binary reads base64 or hexadecimal digits, nil where it is neither.
func binary(text string) []byte {
	if len(text) > maxField {
		return nil
	}
	if b, err := hex.DecodeString(text); err == nil && len(b) > 0 {
		return b
	}
	for _, e := range []*base64.Encoding{base64.StdEncoding.Strict(), base64.RawStdEncoding.Strict()} {
		if b, err := e.DecodeString(text); err == nil && len(b) > 0 {
			return b
		}
	}
	return nil
}

// validNumber asks policy, which the certificate must pass in the end.
func validNumber(number string) bool {
	const city, domain = "000000", "invalid"
	_, _, err := policy.ParseReaderName(policy.ReaderName(number, city, domain), domain)
	return err == nil
}

// judgeKeys judges the key and the request of every row, spread over the
// processors: checking a hundred thousand requests is work.
func (s *Sheet) judgeKeys(faults *Faults) {
	profile, err := policy.Find("device")
	if err != nil {
		panic("stage1: " + err.Error()) // the profile is of this program
	}
	workers := min(runtime.GOMAXPROCS(0), len(s.Rows))
	found := make([]Faults, max(workers, 1))
	var wg sync.WaitGroup
	for w := range workers {
		part := s.Rows[w*len(s.Rows)/workers : (w+1)*len(s.Rows)/workers]
		wg.Go(func() {
			for i := range part {
				judgeKey(&part[i], profile, &found[w])
			}
		})
	}
	wg.Wait()
	for i := range found {
		faults.Total += found[i].Total
		room := maxFaults - len(faults.List)
		faults.List = append(faults.List, found[i].List[:min(room, len(found[i].List))]...)
	}
}

func judgeKey(row *Row, profile *policy.Profile, faults *Faults) {
	column := "key"
	if row.CSR != nil {
		column = "csr"
		csr, err := issuance.ParseCSR(row.CSR)
		if err != nil {
			faults.add(row.Line, column, "", "have the maker make the request anew with the device's key", "the request is not acceptable: %v", err)
			return
		}
		row.SPKI = csr.SPKI
	}
	if row.SPKI == nil {
		return // told already
	}
	if err := policy.CheckKey(row.SPKI, profile); err != nil {
		faults.add(row.Line, column, "", "have the maker make another key: P-256, P-384, or RSA of 2048 to 4096 bits", "the key is not acceptable: %v", err)
	}
}

// judgeTwice finds numbers and keys that stand in the file twice.
func (s *Sheet) judgeTwice(faults *Faults) {
	numbers, keys := make(map[string]int, len(s.Rows)), make(map[[32]byte]int, len(s.Rows))
	for i := range s.Rows {
		row := &s.Rows[i]
		if first, twice := numbers[row.Number]; twice && row.Number != "" {
			faults.add(row.Line, "number", row.Number, "give every reader a number of its own", "it stands in line %d already", first)
		} else {
			numbers[row.Number] = row.Line
		}
		if row.SPKI == nil {
			continue
		}
		sum := sha256.Sum256(row.SPKI)
		if first, twice := keys[sum]; twice {
			faults.add(row.Line, "key", "", "have the maker make a key for each reader", "line %d has the same key", first)
		} else {
			keys[sum] = row.Line
		}
	}
}
