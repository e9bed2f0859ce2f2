package device

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"

	"hufu/readers/apdu"
)

// Point is where in a command the power goes. A command that writes nothing has but
// one: when its answer is ready.
type Point uint8

// The points.
const (
	Before Point = 1 + iota // before the write
	During                  // half of the new image is written
	After                   // after the write, before the answer
)

var points = map[string]Point{"before": Before, "during": During, "after": After}

// Steps are the commands by the names that people give them.
var steps = map[string]byte{
	"identify": apdu.Identify, "certificate": apdu.GetCertificate, "make": apdu.MakeDevice, "put": apdu.PutDevice,
	"enrol": apdu.Enrol, "install": apdu.Install, "receipt": apdu.GetReceipt, "finish": apdu.Finish, "reason": apdu.GetReason,
}

// Cuts is a schedule of power cuts. It may be shared by many readers.
type Cuts struct {
	At     []Cut   // each befalls a reader once
	Random float64 // the part of all commands that are cut at a point by chance, 0 to 1
	Seed   uint64

	mu    sync.Mutex
	count map[string]uint32 // commands that each reader had
	done  map[once]bool
}

// Cut is a power cut at a point of a command.
type Cut struct {
	INS   byte
	Point Point
}

type once struct {
	number string
	cut    int
}

// ParseCuts reads STEP[:before|during|after], several with commas between them.
func ParseCuts(text string) ([]Cut, error) {
	var list []Cut
	for part := range strings.SplitSeq(text, ",") {
		step, point, has := strings.Cut(part, ":")
		if !has {
			point = "before"
		}
		c := Cut{INS: steps[step], Point: points[point]}
		if c.INS == 0 || c.Point == 0 {
			return nil, fmt.Errorf("%q is no point of a command: use %s, and :before, :during or :after", part, strings.Join(stepNames(), ", "))
		}
		list = append(list, c)
	}
	return list, nil
}

func stepNames() []string {
	var names []string
	for name := range steps {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return int(steps[a]) - int(steps[b]) })
	return names
}

// next tells whether and where the power goes in a reader's next command. By chance
// it is the same for the same seed, reader and count of its commands, whatever other
// readers do.
func (c *Cuts) next(number string, ins byte) Point {
	if c == nil {
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.count == nil {
		c.count, c.done = map[string]uint32{}, map[once]bool{}
	}
	c.count[number]++
	for i, cut := range c.At {
		if cut.INS == ins && !c.done[once{number, i}] {
			c.done[once{number, i}] = true
			return cut.Point
		}
	}
	if c.Random <= 0 {
		return 0
	}
	h := fnv.New64a()
	h.Write([]byte(number))
	chance := rand.New(rand.NewPCG(c.Seed, binary.BigEndian.Uint64(h.Sum(nil))^uint64(c.count[number])<<32))
	if chance.Float64() >= c.Random {
		return 0
	}
	return Point(1 + chance.IntN(3))
}
