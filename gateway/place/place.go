// Package place says in which country an address is, and who operates its network, by files on this machine in MaxMind's format. It asks
// nobody. People see what it says beside the address; whether a login is let in never depends on it.
package place

import (
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/oschwald/maxminddb-golang/v2"
	"golang.org/x/text/language"
	"golang.org/x/text/language/display"
)

// Atlas looks addresses up. A nil one knows nothing. Goroutines may share it.
type Atlas struct {
	countries, operators *file // nil: there is none
}

// Open reads the two files, of which either name may be empty: GeoLite2-Country, or another with country.iso_code, and GeoLite2-ASN, or
// another with autonomous_system_number and autonomous_system_organization. A file that is replaced is read again within a minute; where
// that fails, the one that was read stays, and log says so.
func Open(countryFile, operatorFile string, log *slog.Logger) (*Atlas, error) {
	a := &Atlas{}
	for _, part := range []struct {
		path string
		into **file
	}{{countryFile, &a.countries}, {operatorFile, &a.operators}} {
		if part.path == "" {
			continue
		}
		f := &file{path: part.path, log: log}
		if err := f.read(); err != nil {
			return nil, err
		}
		*part.into = f
	}
	return a, nil
}

// Country is the ISO 3166 code of the country that an address is in; empty: not known.
func (a *Atlas) Country(addr netip.Addr) string {
	if a == nil {
		return ""
	}
	var record struct {
		Country struct {
			Code string `maxminddb:"iso_code"`
		} `maxminddb:"country"`
	}
	a.countries.lookup(addr, &record)
	return record.Country.Code
}

// Operator is who runs an address's network: "AS64496 Example Net". Empty: not known.
func (a *Atlas) Operator(addr netip.Addr) string {
	if a == nil {
		return ""
	}
	var record struct {
		Number uint   `maxminddb:"autonomous_system_number"`
		Name   string `maxminddb:"autonomous_system_organization"`
	}
	a.operators.lookup(addr, &record)
	if record.Number == 0 {
		return ""
	}
	return strings.TrimSpace(fmt.Sprintf("AS%d %s", record.Number, short(record.Name)))
}

// maxName bounds an operator's name, in bytes: it is written to the database.
const maxName = 100

func short(name string) string {
	name = strings.ToValidUTF8(name[:min(len(name), maxName)], "")
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, name)
}

// CountryName is what a country is called in a language: "Germany", "Deutschland". A code that is none is returned as it is.
func CountryName(code string, in language.Tag) string {
	region, err := language.ParseRegion(code)
	if err != nil {
		return code
	}
	namer := display.Regions(in)
	if namer == nil {
		return code
	}
	if name := namer.Name(region); name != "" {
		return name
	}
	return code
}

// checkEvery is how often it is looked whether a file was replaced.
const checkEvery = time.Minute

// file is one database, all of it in memory: were it mapped, whoever copies a new one over it would end the process.
type file struct {
	path    string
	log     *slog.Logger
	db      atomic.Pointer[maxminddb.Reader]
	checked atomic.Int64 // when it was looked at last, in nanoseconds

	mu  sync.Mutex  // held while it is looked at
	was fs.FileInfo // of what was read, or refused, last
}

// read reads the file, if it is not the one that was read last. It is called with mu held, or before anybody else has the file.
func (f *file) read() error {
	f.checked.Store(time.Now().UnixNano())
	info, err := os.Stat(f.path)
	if err != nil {
		return err
	}
	if f.was != nil && os.SameFile(f.was, info) && f.was.ModTime().Equal(info.ModTime()) && f.was.Size() == info.Size() {
		return nil
	}
	text, err := os.ReadFile(f.path)
	if err != nil {
		return err
	}
	f.was = info
	db, err := maxminddb.OpenBytes(text)
	if err != nil {
		return fmt.Errorf("%s is no database in MaxMind's format: %w", f.path, err)
	}
	f.db.Store(db)
	return nil
}

// lookup leaves the record as it is where nothing is known.
func (f *file) lookup(addr netip.Addr, record any) {
	if f == nil || !addr.IsValid() {
		return
	}
	f.refresh()
	if err := f.db.Load().Lookup(addr.Unmap().WithZone("")).Decode(record); err != nil {
		f.log.Debug("look an address up", "file", f.path, "err", err) // an IPv6 address in a file of IPv4 ones
	}
}

// refresh looks at the file where it is time. Others use meanwhile what there is.
func (f *file) refresh() {
	if time.Since(time.Unix(0, f.checked.Load())) < checkEvery || !f.mu.TryLock() {
		return
	}
	defer f.mu.Unlock()
	if err := f.read(); err != nil {
		f.log.Warn("the file of places can't be read again; the one that was read stays", "err", err)
	}
}
