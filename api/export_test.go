package api

// Route is one door, for the tests that walk them.
type Route = route

// Routes is the table that the mux is made from.
var Routes = routes

// Kinds of access.
const (
	ByRight   = byRight
	AnyPerson = anyPerson
	AnyPeer   = anyPeer
)

// Document is the OpenAPI document.
func Document() []byte { return openAPI("test") }

// Decode is how a body is read.
func Decode(body []byte, v any) error { return decode(body, v) }

// Host is what the limiter counts by.
func Host(addr string) string { return host(addr) }

// KindNames lists the kinds of problems.
func KindNames() (names []string) {
	for _, k := range kinds {
		names = append(names, k.Name)
	}
	return names
}
