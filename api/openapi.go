package api

import (
	"encoding/json"
	"maps"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"hufu/api/client"
)

// object is a JSON object of the OpenAPI document.
type object map[string]any

// openAPI writes the OpenAPI 3.1 document from the table of routes and the wire
// types.
func openAPI(version string) []byte {
	if version == "" {
		version = "0"
	}
	schemas := schemas{}
	paths := object{}
	for i := range routes {
		rt := &routes[i]
		item, ok := paths[rt.Path].(object)
		if !ok {
			item = object{}
			paths[rt.Path] = item
		}
		item[strings.ToLower(rt.Method)] = rt.document(schemas)
	}
	types := make([]string, len(kinds))
	for i, k := range kinds {
		types[i] = "/problems/" + k.Name
	}
	doc := object{
		"openapi": "3.1.0",
		"info": object{
			"title": "Hufu", "version": version,
			"description": "A certificate authority for a card service centre, its cities and their readers. Every request is made over mutual TLS 1.3. " +
				"A refusal is a problem document (RFC 9457) whose type is one of: " + strings.Join(types, ", ") + ".",
			"license": object{"name": "Apache-2.0", "identifier": "Apache-2.0"},
		},
		"security": []object{{"mutualTLS": []string{}}},
		"paths":    paths,
		"components": object{
			"securitySchemes": object{"mutualTLS": object{"type": "mutualTLS", "description": "a certificate of a person or a machine that the book knows"}},
			"responses": object{"Problem": object{
				"description": "the refusal and its remedy",
				"content":     object{client.MediaProblem: object{"schema": schemas.of(reflect.TypeFor[client.Problem]())}},
			}},
			"schemas": schemas,
		},
	}
	b, err := json.MarshalIndent(doc, "", " ")
	if err != nil {
		panic("api: the document cannot be written as JSON: " + err.Error()) // it holds nothing but strings, numbers and maps
	}
	return b
}

var pathParam = regexp.MustCompile(`\{(\w+)\}`)

// document is the Operation Object of a route.
func (rt *route) document(schemas schemas) object {
	op := object{"operationId": rt.ID, "summary": rt.Doc, "responses": rt.responses(schemas), "x-hufu-city": rt.City.words}
	if rt.Operation != "" {
		op["x-hufu-operation"] = string(rt.Operation)
	}
	var params []object
	for _, m := range pathParam.FindAllStringSubmatch(rt.Path, -1) {
		params = append(params, object{"name": m[1], "in": "path", "required": true, "schema": object{"type": "string"}})
	}
	for _, p := range rt.Query {
		params = append(params, object{"name": p.Name, "in": "query", "description": p.Doc, "schema": object{"type": p.Type}})
	}
	if rt.Write {
		params = append(params, object{
			"name": client.HeaderIdempotencyKey, "in": "header", "required": true, "schema": object{"type": "string", "minLength": 1, "maxLength": maxKey},
			"description": "new for each new act, the same when asking again for a lost answer",
		})
	}
	if params != nil {
		op["parameters"] = params
	}
	if rt.Body != nil {
		content := object{client.MediaJSON: object{"schema": schemas.of(reflect.TypeOf(rt.Body)), "example": rt.Body}}
		if rt.CMS != nil {
			content[client.MediaCMS] = object{"schema": object{"type": "string", "contentMediaType": client.MediaCMS}}
		}
		op["requestBody"] = object{"required": !rt.Optional, "content": content}
	}
	return op
}

func (rt *route) responses(schemas schemas) object {
	ok := object{"description": http.StatusText(rt.Status)}
	switch {
	case rt.Answer != nil:
		ok["content"] = object{client.MediaJSON: object{"schema": schemas.of(reflect.TypeOf(rt.Answer))}}
	case rt.Media != "":
		ok["content"] = object{rt.Media: object{}}
	}
	if rt.Location {
		ok["headers"] = object{"Location": object{"description": "where it can be looked at", "schema": object{"type": "string"}}}
	}
	all := object{strconv.Itoa(rt.Status): ok, "default": object{"$ref": "#/components/responses/Problem"}}
	if rt.Also != 0 {
		all[strconv.Itoa(rt.Also)] = object{
			"description": http.StatusText(rt.Also),
			"content":     object{client.MediaJSON: object{"schema": schemas.of(reflect.TypeFor[client.Approval]())}},
		}
	}
	return all
}

// schemas is the wire types that the document has met, by name.
type schemas map[string]object

// of is the schema of a type: a reference for a wire type.
func (s schemas) of(t reflect.Type) object {
	switch t {
	case reflect.TypeFor[json.RawMessage]():
		return object{}
	case reflect.TypeFor[[]byte]():
		return object{"type": "string", "contentEncoding": "base64"}
	}
	if t.PkgPath() == "time" && t.Name() == "Time" {
		return object{"type": "string", "format": "date-time"}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return s.of(t.Elem())
	case reflect.String:
		return object{"type": "string"}
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Float64:
		return object{"type": "number"}
	case reflect.Slice:
		return object{"type": "array", "items": s.of(t.Elem())}
	case reflect.Map:
		return object{"type": "object", "additionalProperties": s.of(t.Elem())}
	case reflect.Struct:
		return s.ofStruct(t)
	case reflect.Int, reflect.Int64:
		return object{"type": "integer"}
	case reflect.Uint8, reflect.Uint32, reflect.Uint64:
		return object{"type": "integer", "minimum": 0}
	}
	panic("api: a wire type holds a " + t.String() + ", which the document has no schema for")
}

func (s schemas) ofStruct(t reflect.Type) object {
	name := schemaName(t)
	if _, known := s[name]; !known {
		schema := object{"type": "object"}
		s[name] = schema // before the fields, which may come back to it
		properties := object{}
		var required []string
		for i := range t.NumField() {
			f := t.Field(i)
			field, options, _ := strings.Cut(f.Tag.Get("json"), ",")
			p := maps.Clone(s.of(f.Type))
			p["description"] = f.Tag.Get("doc")
			properties[field] = p
			if !slices.Contains(strings.Split(options, ","), "omitempty") && !slices.Contains(strings.Split(options, ","), "omitzero") {
				required = append(required, field)
			}
		}
		schema["properties"] = properties
		if required != nil {
			schema["required"] = required
		}
	}
	return object{"$ref": "#/components/schemas/" + name}
}

// schemaName turns Page[hufu/api/client.Event] into EventPage.
func schemaName(t reflect.Type) string {
	outer, inner, generic := strings.Cut(strings.TrimSuffix(t.Name(), "]"), "[")
	if !generic {
		return outer
	}
	return inner[strings.LastIndexByte(inner, '.')+1:] + outer
}
