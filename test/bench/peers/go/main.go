// A peer: Go's net/http with pgx and its prepared statements, what a compiled service does with the same table.
//
// Built from Debian's packages alone: GO111MODULE=off GOPATH=/usr/share/gocode go build. With
// JSON_BY=postgresql the database writes the JSON and Go passes it on; without, rows are scanned into
// structs and encoded here.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgconn"
	"github.com/jackc/pgx/v4"
	"github.com/jackc/pgx/v4/pgxpool"
)

const (
	mostBodyBytes   = 1 << 20
	deepestAllowed  = 100
	largestID       = 1<<53 - 1
	defaultCurrency = "USD"
)

var (
	priceFormat    = regexp.MustCompile(`^(0|[1-9][0-9]{0,9})(\.[0-9]{1,2})?$`)
	currencyFormat = regexp.MustCompile(`^[A-Z]{3}$`)
	versionFormat  = regexp.MustCompile(`^"([1-9][0-9]{0,15})"$`)
)

var errInvalid = errors.New("invalid")

func main() {
	config, err := pgxpool.ParseConfig(os.Getenv("DATABASE_URL"))
	if err != nil {
		log.Fatal(err)
	}
	most, err := strconv.ParseInt(os.Getenv("POOL_MAX"), 10, 32)
	if err != nil {
		log.Fatal(err)
	}
	config.MaxConns = int32(most)
	pool, err := pgxpool.ConnectConfig(context.Background(), config)
	if err != nil {
		log.Fatal(err)
	}
	s := service{pool: pool, statements: statementsFor(os.Getenv("JSON_BY") == "postgresql")}
	mux := http.NewServeMux()
	mux.HandleFunc("/health", health)
	mux.HandleFunc("/products", s.products)
	mux.HandleFunc("/products/", s.product)
	server := http.Server{
		Addr:              "127.0.0.1:" + os.Getenv("PORT"),
		Handler:           mux,
		ReadHeaderTimeout: 10 * time.Second,
	}
	log.Fatal(server.ListenAndServe())
}

type service struct {
	pool *pgxpool.Pool
	statements
}

// The text of each statement stays the same, so pgx prepares it once on a connection.
type statements struct {
	byPostgres                bool
	columns                   string
	find, first, next, create string
}

func statementsFor(byPostgres bool) statements {
	s := statements{byPostgres: byPostgres}
	// Text, because a float would lose decimals and pgx's own numeric is slow to be written out.
	price, created, updated := "price::text", "created_at", "updated_at"
	if byPostgres {
		price, created, updated = "price", rfc3339(created), rfc3339(updated)
	}
	s.columns = fmt.Sprintf(
		"id, sku, name, description, %s, currency, stock, attributes, version, %s, %s",
		price, created, updated)
	s.find = s.one("select " + s.columns + " from products where id = $1")
	s.first = s.many("select " + s.columns + " from products order by id desc limit $1")
	s.next = s.many("select " + s.columns + " from products where id < $2 order by id desc limit $1")
	s.create = s.one("insert into products (sku, name, description, price, currency, stock, attributes)" +
		" values ($1, $2, $3, $4, $5, $6, $7) returning " + s.columns)
	return s
}

func rfc3339(column string) string {
	return fmt.Sprintf(`to_char(%s at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as %[1]s`, column)
}

func (s *statements) one(statement string) string {
	if !s.byPostgres {
		return statement
	}
	return "with product as (" + statement + ") select row_to_json(product) from product"
}

func (s *statements) many(statement string) string {
	if !s.byPostgres {
		return statement
	}
	return "select json_build_object('items', coalesce(json_agg(product), '[]')) from (" + statement + ") as product"
}

type product struct {
	ID          int64           `json:"id"`
	SKU         *string         `json:"sku"`
	Name        string          `json:"name"`
	Description *string         `json:"description"`
	Price       json.Number     `json:"price"`
	Currency    string          `json:"currency"`
	Stock       int32           `json:"stock"`
	Attributes  json.RawMessage `json:"attributes"`
	Version     int64           `json:"version"`
	CreatedAt   instant         `json:"created_at"`
	UpdatedAt   instant         `json:"updated_at"`
}

type page struct {
	Items []product `json:"items"`
}

// Where a row is scanned to, by plain pointers: pgx takes longer with types of our own.
func (p *product) places() []interface{} {
	return []interface{}{
		&p.ID, &p.SKU, &p.Name, &p.Description, (*string)(&p.Price), &p.Currency, &p.Stock,
		(*[]byte)(&p.Attributes), &p.Version, &p.CreatedAt.Time, &p.UpdatedAt.Time,
	}
}

// A time.Time by itself leaves the zeros at the end of its microseconds out.
type instant struct{ time.Time }

func (i instant) MarshalJSON() ([]byte, error) {
	return i.UTC().AppendFormat(make([]byte, 0, 32), `"2006-01-02T15:04:05.000000Z"`), nil
}

// What a body says of a field: nothing, null (given, without a value) or a value.
type field[T any] struct {
	given bool
	value *T
}

func (f *field[T]) UnmarshalJSON(text []byte) error {
	f.given = true
	return json.Unmarshal(text, &f.value)
}

func (f *field[T]) or(otherwise T) T {
	if f.value == nil {
		return otherwise
	}
	return *f.value
}

// A number or a decimal string; PostgreSQL gets it as decimal text, so nothing is rounded.
type price string

func (p *price) UnmarshalJSON(text []byte) error {
	var decimal string
	if text[0] == '"' {
		if err := json.Unmarshal(text, &decimal); err != nil {
			return err
		}
	} else {
		number, err := strconv.ParseFloat(string(text), 64)
		if err != nil {
			return err
		}
		decimal = strconv.FormatFloat(number, 'f', -1, 64)
	}
	if !priceFormat.MatchString(decimal) {
		return errInvalid
	}
	*p = price(decimal)
	return nil
}

// For POST and PATCH.
type input struct {
	SKU         field[string]          `json:"sku"`
	Name        field[string]          `json:"name"`
	Description field[string]          `json:"description"`
	Price       field[price]           `json:"price"`
	Currency    field[string]          `json:"currency"`
	Stock       field[int32]           `json:"stock"`
	Attributes  field[json.RawMessage] `json:"attributes"`
}

// Whether the fields that are given keep their limits. How many bytes the attributes take, when they
// are written as jsonb, is left to the table.
func (in *input) valid() bool {
	if in.Name.given {
		if in.Name.value == nil {
			return false
		}
		*in.Name.value = strings.TrimSpace(*in.Name.value)
	}
	return hasLength(in.SKU, 1, 64) &&
		hasLength(in.Name, 1, 200) &&
		hasLength(in.Description, 0, 5000) &&
		(!in.Price.given || in.Price.value != nil) &&
		(in.Currency.value == nil || currencyFormat.MatchString(*in.Currency.value)) &&
		(in.Stock.value == nil || *in.Stock.value >= 0) &&
		(in.Attributes.value == nil || isObject(*in.Attributes.value))
}

// What a patch may leave out, or take back to its default by null, a new product must have.
func (in *input) whole() bool {
	return in.Name.given && in.Price.given &&
		in.Currency.given == (in.Currency.value != nil) &&
		in.Stock.given == (in.Stock.value != nil) &&
		in.Attributes.given == (in.Attributes.value != nil)
}

func hasLength(f field[string], least, most int) bool {
	if f.value == nil {
		return true
	}
	length := utf8.RuneCountInString(*f.value)
	return least <= length && length <= most
}

// Of JSON that was parsed before, so a quote or a bracket is where it may be.
func isObject(text []byte) bool {
	depth, inString := 0, false
	for at := 0; at < len(text); at++ {
		switch c := text[at]; {
		case inString && c == '\\':
			at++
		case c == '"':
			inString = !inString
		case inString:
		case c == '{' || c == '[':
			if depth++; depth > deepestAllowed {
				return false
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return text[0] == '{'
}

// Answers by itself when the body cannot be taken.
func readInput(w http.ResponseWriter, r *http.Request) (in input, ok bool) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, mostBodyBytes))
	if err != nil {
		refuse(w, http.StatusRequestEntityTooLarge, "too large")
		return in, false
	}
	if json.Unmarshal(body, &in) != nil || !in.valid() {
		refuse(w, http.StatusUnprocessableEntity, "invalid product")
		return in, false
	}
	return in, true
}

func health(w http.ResponseWriter, _ *http.Request) {
	send(w, http.StatusOK, []byte(`{"status":"ok"}`))
}

func (s *service) products(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodGet:
		s.list(w, r)
	case http.MethodPost:
		s.post(w, r)
	default:
		refuse(w, http.StatusMethodNotAllowed, "method not allowed")
	}
}

func (s *service) product(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.ParseInt(strings.TrimPrefix(r.URL.Path, "/products/"), 10, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) || id < 1 {
		refuse(w, http.StatusUnprocessableEntity, "invalid id")
		return
	}
	switch r.Method {
	case http.MethodGet:
		s.get(w, r, id)
	case http.MethodPatch:
		s.patch(w, r, id)
	default:
		refuse(w, http.StatusMethodNotAllowed, "method not allowed")
	}
}

func (s *service) get(w http.ResponseWriter, r *http.Request, id int64) {
	body, err := s.queryProduct(r.Context(), s.find, id)
	answer(w, http.StatusOK, body, err)
}

func (s *service) list(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	limit, ok := wholeNumber(query.Get("limit"), 20, 100)
	cursor, okToo := wholeNumber(query.Get("cursor"), 0, largestID)
	if !ok || !okToo {
		refuse(w, http.StatusUnprocessableEntity, "invalid query")
		return
	}
	statement, parameters := s.first, []interface{}{limit}
	if cursor != 0 {
		statement, parameters = s.next, []interface{}{limit, cursor}
	}
	body, err := s.queryPage(r.Context(), limit, statement, parameters)
	answer(w, http.StatusOK, body, err)
}

// From 1 on, when it is there.
func wholeNumber(text string, otherwise, most int64) (number int64, ok bool) {
	if text == "" {
		return otherwise, true
	}
	number, err := strconv.ParseInt(text, 10, 64)
	return number, err == nil && 1 <= number && number <= most
}

func (s *service) post(w http.ResponseWriter, r *http.Request) {
	in, ok := readInput(w, r)
	if !ok {
		return
	}
	if !in.whole() {
		refuse(w, http.StatusUnprocessableEntity, "invalid product")
		return
	}
	body, err := s.queryProduct(r.Context(), s.create,
		in.SKU.value, *in.Name.value, in.Description.value, string(*in.Price.value),
		in.Currency.or(defaultCurrency), in.Stock.or(0), string(in.Attributes.or(json.RawMessage("{}"))))
	answer(w, http.StatusCreated, body, err)
}

// A statement for each selection of fields, of which there are not many in use: pgx keeps them
// prepared. The condition is a part of it, so nobody changes the product in between.
func (s *service) patch(w http.ResponseWriter, r *http.Request, id int64) {
	in, ok := readInput(w, r)
	if !ok {
		return
	}
	u := update{parameters: []interface{}{id}}
	set(&u, "sku", "$%d", in.SKU)
	set(&u, "name", "$%d", in.Name)
	set(&u, "description", "$%d", in.Description)
	set(&u, "price", "$%d", in.Price)
	set(&u, "currency", "$%d", in.Currency)
	set(&u, "stock", "$%d", in.Stock)
	set(&u, "attributes", "jsonb_merge_patch(attributes, $%d)", in.Attributes)
	if len(u.settings) == 0 {
		u.settings = []string{"stock = stock"} // no change, which leaves the version
	}
	condition := "id = $1"
	tag := r.Header.Get("If-Match")
	isConditional := tag != "" && tag != "*"
	if isConditional {
		// A tag that is none of ours is one that no product has.
		version := int64(0)
		if found := versionFormat.FindStringSubmatch(tag); found != nil {
			version, _ = strconv.ParseInt(found[1], 10, 64)
		}
		u.parameters = append(u.parameters, version)
		condition += fmt.Sprintf(" and version = $%d", len(u.parameters))
	}
	statement := s.one("update products set " + strings.Join(u.settings, ", ") +
		" where " + condition + " returning " + s.columns)
	body, err := s.queryProduct(r.Context(), statement, u.parameters...)
	if isConditional && errors.Is(err, pgx.ErrNoRows) {
		err = s.whyNot(r.Context(), id)
	}
	answer(w, http.StatusOK, body, err)
}

var errOtherVersion = errors.New("another version")

// Asked afterwards, on the way of a failure only.
func (s *service) whyNot(ctx context.Context, id int64) error {
	var isThere bool
	err := s.pool.QueryRow(ctx, "select exists (select from products where id = $1)", id).Scan(&isThere)
	if err != nil {
		return err
	}
	if !isThere {
		return pgx.ErrNoRows
	}
	return errOtherVersion
}

type update struct {
	settings   []string
	parameters []interface{}
}

func set[T any](u *update, column, expression string, f field[T]) {
	if !f.given {
		return
	}
	if f.value == nil {
		u.settings = append(u.settings, column+" = default")
		return
	}
	switch value := interface{}(*f.value).(type) {
	case price: // as what pgx sends as it is
		u.parameters = append(u.parameters, string(value))
	case json.RawMessage:
		u.parameters = append(u.parameters, string(value))
	default:
		u.parameters = append(u.parameters, value)
	}
	u.settings = append(u.settings, fmt.Sprintf(column+" = "+expression, len(u.parameters)))
}

func (s *service) queryProduct(ctx context.Context, statement string, parameters ...interface{}) ([]byte, error) {
	row := s.pool.QueryRow(ctx, statement, parameters...)
	if s.byPostgres {
		var body []byte
		err := row.Scan(&body)
		return body, err
	}
	var p product
	if err := row.Scan(p.places()...); err != nil {
		return nil, err
	}
	return json.Marshal(&p)
}

func (s *service) queryPage(ctx context.Context, limit int64, statement string, parameters []interface{}) ([]byte, error) {
	if s.byPostgres {
		var body []byte
		err := s.pool.QueryRow(ctx, statement, parameters...).Scan(&body)
		return body, err
	}
	rows, err := s.pool.Query(ctx, statement, parameters...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	found := page{Items: make([]product, 0, limit)}
	for rows.Next() {
		found.Items = append(found.Items, product{})
		if err := rows.Scan(found.Items[len(found.Items)-1].places()...); err != nil {
			return nil, err
		}
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	return json.Marshal(&found)
}

func answer(w http.ResponseWriter, status int, body []byte, err error) {
	var refused *pgconn.PgError
	switch {
	case err == nil:
		send(w, status, body)
	case errors.Is(err, pgx.ErrNoRows):
		refuse(w, http.StatusNotFound, "not found")
	case errors.Is(err, errOtherVersion):
		refuse(w, http.StatusPreconditionFailed, err.Error())
	case errors.As(err, &refused) && refused.Code == "23505":
		refuse(w, http.StatusConflict, "the sku is taken")
	// A check of the table, or a value that its type cannot hold.
	case errors.As(err, &refused) && (refused.Code == "23514" || strings.HasPrefix(refused.Code, "22")):
		refuse(w, http.StatusUnprocessableEntity, "invalid product")
	default:
		if !errors.Is(err, context.Canceled) { // a client that has gone is no fault of ours
			log.Print(err)
		}
		refuse(w, http.StatusInternalServerError, "internal")
	}
}

func refuse(w http.ResponseWriter, status int, reason string) {
	send(w, status, []byte(`{"error":"`+reason+`"}`))
}

// With its length, or net/http would send a page in chunks.
func send(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	w.Write(body)
}
