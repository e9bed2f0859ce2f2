package ldapsync_test

import (
	"flag"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"hufu/ldapsync"
)

// TestDrillRandom makes random changes under random faults of both directories, several at once if it happens so, and looks after each
// history that everything is where it belongs.
func TestDrillRandom(t *testing.T) {
	checks := flag.Lookup("rapid.checks")
	old := checks.Value.String()
	if err := checks.Value.Set(strconv.Itoa(4 * soak())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := checks.Value.Set(old); err != nil {
			t.Error(err)
		}
	})
	var ways []*proxy
	d := newDrill(t, nil, func(f *fragile) ldapsync.Directory {
		ways = append(ways, startProxy(t, f.Server))
		return ways[0].directory("north")
	})
	ways = append(ways, startProxy(t, d.south.Server))
	d.dirs[1] = ways[1].directory("south")
	for i := range d.dirs {
		d.dirs[i].Timeout = 300 * time.Millisecond
	}
	d.publish()
	d.p.inStep(t, d.b, "north", "south")
	d.watch(d.north, nil)
	d.watch(d.south, nil)

	servers := []*fragile{d.north, d.south}
	snapshots := make([]string, 2)
	rapid.Check(t, func(r *rapid.T) {
		var history []string
		down, paused := [2]bool{}, [2]bool{}
		wake := func(i int) {
			if paused[i] {
				servers[i].must(servers[i].Resume())
			}
			if down[i] {
				servers[i].must(servers[i].Restart(t.Context()))
			}
			paused[i], down[i] = false, false
		}
		for range rapid.IntRange(5, 25).Draw(r, "steps") {
			i := rapid.IntRange(0, 1).Draw(r, "directory")
			s := servers[i]
			step := rapid.SampledFrom([]string{
				"change", "change", "change", "kill", "stop", "wake", "pause", "hold", "release", "cut", "snapshot", "revert", "publisher",
			}).Draw(r, "step")
			history = append(history, fmt.Sprintf("%s %d", step, i))
			switch step {
			case "change":
				for range rapid.IntRange(1, 8).Draw(r, "changes") {
					d.one(rapid.IntRange(0, 5).Draw(r, "kind"))
				}
			case "kill":
				s.must(s.Kill())
				paused[i], down[i] = false, true
			case "stop":
				wake(i)
				s.must(s.Stop())
				down[i] = true
			case "wake":
				wake(i)
			case "pause":
				if !down[i] && !paused[i] {
					s.must(s.Pause())
					paused[i] = true
				}
			case "hold":
				ways[i].hold()
			case "release":
				ways[i].release()
			case "cut":
				ways[i].cut()
			case "snapshot":
				if !down[i] && !paused[i] {
					snapshots[i] = s.freeze()
				}
			case "revert":
				if snapshots[i] != "" {
					s.must(s.Kill())
					s.must(s.Revert(snapshots[i]))
					paused[i], down[i] = false, true
				}
			case "publisher":
				d.p.stop()
				d.publish()
			}
		}
		d.one(0) // what the directories must get to show that they have come back
		began := time.Now()
		for i := range servers {
			wake(i)
			ways[i].release()
			ways[i].cut()
		}
		d.p.inStep(t, d.b, "north", "south")
		result := &result{settled: time.Since(began), wrong: d.wrong.Swap(0), asked: d.asked.Swap(0)}
		if result.settled > drillBound {
			t.Errorf("it took %v to come into step again, more than %v", result.settled, drillBound)
		}
		for _, s := range servers {
			holds(t, s.Server, d.b)
			result.lost += d.lost(s)
		}
		result.print(t, "random changes and faults")
		if t.Failed() {
			// No smaller history is looked for: each goes on where the last one ended.
			t.Fatalf("after %s", strings.Join(history, ", "))
		}
	})
	d.halt()
}
