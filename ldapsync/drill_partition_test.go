package ldapsync_test

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"hufu/ldapsync"
)

// cable joins this network namespace with another one. Either direction can be cut: what goes there is lost, and nobody is told.
type cable struct {
	t          testing.TB
	name       string // of the namespace
	here       string // device on this side; the other side's is "there"
	hereAddr   string
	thereAddr  string
	hereEther  string
	thereEther string
}

func ip(args ...string) (string, error) {
	out, err := exec.Command("ip", args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out)), nil
}

// layCable makes a namespace and a cable to it.
func layCable(t testing.TB) (*cable, error) {
	t.Helper()
	n := rand.IntN(1 << 14)
	net := fmt.Sprintf("10.%d.%d.", 64+n>>8, n&255)
	c := &cable{t: t, name: fmt.Sprintf("hufu%d-%d", os.Getpid(), n), here: fmt.Sprintf("hufu%d", n), hereAddr: net + "1", thereAddr: net + "2"}
	t.Cleanup(func() {
		// With the namespace goes the device in it, and with that its other end.
		_, _ = ip("netns", "del", c.name)
	})
	if _, err := ip("netns", "add", c.name); err != nil {
		return nil, err
	}
	for _, args := range []string{
		"link add " + c.here + " type veth peer name there netns " + c.name,
		"addr add " + c.hereAddr + "/24 dev " + c.here,
		"link set " + c.here + " up",
		"-n " + c.name + " addr add " + c.thereAddr + "/24 dev there",
		"-n " + c.name + " link set there up",
	} {
		if _, err := ip(strings.Fields(args)...); err != nil {
			return nil, err
		}
	}
	var err error
	if c.hereEther, err = ether(ip("link", "show", c.here)); err != nil {
		return nil, err
	}
	if c.thereEther, err = ether(ip("-n", c.name, "link", "show", "there")); err != nil {
		return nil, err
	}
	return c, c.set(true, true)
}

func ether(shown string, err error) (string, error) {
	_, after, ok := strings.Cut(shown, "link/ether ")
	if err == nil && !ok {
		err = fmt.Errorf("ip link show says %q", shown)
	}
	address, _, _ := strings.Cut(after, " ")
	return address, err
}

// set says which directions work. A frame for an Ethernet address that nobody has is lost without a word.
func (c *cable) set(there, here bool) error {
	nobody := "02:00:00:00:00:01"
	to := map[bool]string{true: c.thereEther, false: nobody}[there]
	if _, err := ip("neigh", "replace", c.thereAddr, "lladdr", to, "dev", c.here, "nud", "permanent"); err != nil {
		return err
	}
	to = map[bool]string{true: c.hereEther, false: nobody}[here]
	_, err := ip("-n", c.name, "neigh", "replace", c.hereAddr, "lladdr", to, "dev", "there", "nud", "permanent")
	return err
}

// listen takes a port in the other namespace.
func (c *cable) listen() (l net.Listener, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		// The thread ends with this goroutine, since it is not unlocked: no other goroutine ever runs in that namespace.
		runtime.LockOSThread()
		var f *os.File
		if f, err = os.Open("/run/netns/" + c.name); err != nil {
			return
		}
		defer f.Close()
		if err = unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
			return
		}
		l, err = net.Listen("tcp", c.thereAddr+":0")
	}()
	<-done
	return l, err
}

// drillPartition cuts the north off: its door stands in another network namespace. Where namespaces are not permitted, a proxy that holds
// everything back takes their place, and the log says so.
func drillPartition(t *testing.T, requests, answers bool) *result {
	cut, heal := func() {}, func() {}
	d := newDrill(t, nil, func(f *fragile) ldapsync.Directory {
		c, err := layCable(t)
		var l net.Listener
		if err == nil {
			l, err = c.listen()
		}
		if err != nil {
			t.Logf("NO NETWORK NAMESPACES HERE: a proxy that holds everything back stands in for the partition: %v", err)
			way := startProxy(t, f.Server)
			cut, heal = way.hold, func() { way.release(); way.cut() }
			return way.directory("north")
		}
		cut = func() { f.must(c.set(!requests, !answers)) }
		heal = func() { f.must(c.set(true, true)) }
		return startProxyAt(t, f.Server, l).directory("north")
	})
	d.begin()
	cut()
	d.seen(says("unreachable"))
	heal()
	return d.settle()
}
