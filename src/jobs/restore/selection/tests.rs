use super::*;

fn entry(id: i32, kind: &str, schema: &str, name: &str, needs: &[i32]) -> Entry {
    let [kind, schema, name] = [kind, schema, name].map(str::to_owned);
    Entry { id, kind, schema, name, needs: needs.to_vec() }
}

/// A shop, as pg_dump 18 lists it.
fn shop() -> Vec<Entry> {
    vec![
        entry(6, "SCHEMA", "", "stock", &[]),
        entry(90, "ACL", "", "SCHEMA stock", &[6]),
        entry(10, "TYPE", "public", "mood", &[]),
        entry(11, "FUNCTION", "public", "changed()", &[]),
        entry(91, "ACL", "public", "FUNCTION changed()", &[11]),
        entry(20, "TABLE", "public", "customers", &[10]),
        entry(21, "SEQUENCE", "public", "customers_id_seq", &[20]),
        entry(22, "SEQUENCE OWNED BY", "public", "customers_id_seq", &[21]),
        entry(23, "TABLE", "public", "orders", &[]),
        entry(24, "VIEW", "public", "totals", &[23]),
        entry(92, "COMMENT", "public", "VIEW totals", &[24]),
        entry(25, "TABLE", "stock", "orders", &[6]),
        entry(26, "TABLE", "public", "days", &[]),
        entry(27, "TABLE", "public", "days_1", &[26]),
        entry(28, "TABLE ATTACH", "public", "days_1", &[27, 26]),
        entry(29, "DEFAULT", "public", "customers id", &[20, 21]),
        entry(30, "TABLE DATA", "public", "customers", &[20]),
        entry(31, "TABLE DATA", "public", "orders", &[23]),
        entry(32, "TABLE DATA", "stock", "orders", &[25]),
        entry(33, "TABLE DATA", "public", "days_1", &[27]),
        entry(34, "SEQUENCE SET", "public", "customers_id_seq", &[21]),
        entry(40, "CONSTRAINT", "public", "customers customers_pkey", &[20]),
        entry(41, "INDEX", "public", "days_idx", &[26]),
        entry(42, "INDEX", "public", "days_1_idx", &[41, 27]),
        entry(43, "CONSTRAINT", "public", "days days_pkey", &[26]),
        entry(44, "CONSTRAINT", "public", "days_1 days_1_pkey", &[27, 43]),
        entry(45, "INDEX ATTACH", "public", "days_1_idx", &[42, 41, 27, 26]),
        entry(46, "INDEX ATTACH", "public", "days_1_pkey", &[44, 43, 27, 26]),
        entry(50, "TRIGGER", "public", "orders changing", &[23, 11]),
        entry(51, "FK CONSTRAINT", "public", "orders orders_customer_fkey", &[23, 20, 40]),
        entry(52, "PUBLICATION", "", "everything", &[]),
        entry(53, "PUBLICATION TABLE", "stock", "everything orders", &[52, 25]),
        entry(54, "VIEW", "stock", "all", &[25, 23]),
        entry(93, "ACL", "stock", "VIEW \"all\"", &[54]),
    ]
}

fn pick(tables: &[&str], schemas: &[&str]) -> Result<Picked> {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let selection = Selection { tables: names(tables), schemas: names(schemas), ..Selection::default() };
    selection.pick(&shop())
}

fn picked(tables: &[&str], schemas: &[&str]) -> Vec<i32> {
    pick(tables, schemas).unwrap().ids
}

#[test]
fn a_table_comes_with_what_belongs_to_it_and_what_it_needs() {
    let customers = [10, 20, 21, 22, 29, 30, 34, 40];
    assert_eq!(picked(&["customers"], &[]), customers);
    assert_eq!(picked(&["public.customers"], &[]), customers);
    assert_eq!(pick(&["customers"], &[]).unwrap().missing(), None);
    // The function of a trigger, its grants, and the key to another selected table.
    assert_eq!(
        picked(&["customers", "public.orders"], &[]),
        [10, 11, 91, 20, 21, 22, 23, 29, 30, 31, 34, 40, 50, 51]
    );
    assert_eq!(pick(&["customers"], &[]).unwrap().list(), "10;\n20;\n21;\n22;\n29;\n30;\n34;\n40;\n");
}

#[test]
fn each_name_means_what_it_says() {
    assert_eq!(picked(&["stock.orders"], &[]), [6, 90, 25, 32]);
    // A name without a schema means every table of this name.
    let both = picked(&["orders"], &[]);
    assert!([23, 25, 31, 32].iter().all(|id| both.contains(id)) && !both.contains(&20), "{both:?}");
    // Several add up: the tables of one schema do not filter another schema.
    assert_eq!(picked(&["stock.orders", "public.days_1"], &[]), [6, 90, 25, 27, 32, 33, 42, 44]);
    assert_eq!(picked(&["customers_id_seq", "customers"], &[]), [10, 20, 21, 22, 29, 30, 34, 40]);
}

#[test]
fn a_partitioned_table_comes_with_its_partitions_and_a_partition_alone_is_a_table() {
    assert_eq!(picked(&["days"], &[]), [26, 27, 28, 33, 41, 42, 43, 44, 45, 46]);
    let part = pick(&["days_1"], &[]).unwrap();
    assert_eq!(part.ids, [27, 33, 42, 44]);
    assert_eq!(
        part.missing().unwrap(),
        "not restored, as it needs what is not selected: table attach public.days_1 (needs table public.days), \
         index attach public.days_1_idx (needs index public.days_idx), index attach public.days_1_pkey (needs \
         constraint public.days days_pkey)"
    );
}

#[test]
fn what_needs_a_table_that_is_not_selected_is_left_out_and_named() {
    let orders = pick(&["public.orders"], &[]).unwrap();
    assert_eq!(orders.ids, [11, 91, 23, 31, 50]);
    let missing = orders.missing().unwrap();
    assert!(
        missing.ends_with("fk constraint public.orders orders_customer_fkey (needs table public.customers)"),
        "{missing}"
    );
    // No publication: it is for the whole database. The grants on the view go with the view, unnamed.
    let stock = pick(&[], &["stock"]).unwrap();
    assert_eq!(stock.ids, [6, 90, 25, 32]);
    assert_eq!(
        stock.missing().unwrap(),
        "not restored, as it needs what is not selected: view stock.all (needs table public.orders)"
    );
    // But one that was asked for itself is not left out.
    let problem = pick(&["totals"], &[]).unwrap_err().to_string();
    assert_eq!(
        problem,
        "view public.totals cannot be restored without table public.orders, which is not selected"
    );
    assert_eq!(picked(&["totals", "public.orders"], &[]), [11, 91, 23, 24, 92, 31, 50]);
}

#[test]
fn names_that_mean_nothing_are_named() {
    let problem = pick(&["Orders", "orders", "stock.customers"], &["Stock"]).unwrap_err().to_string();
    assert!(
        problem.starts_with(
            "the backup has no table \"Orders\", no table \"stock.customers\", no schema \"Stock\"; "
        ),
        "{problem}"
    );
}

#[test]
fn needs_that_go_in_a_circle_or_nowhere_end() {
    let circle = [
        entry(1, "TABLE", "public", "a", &[2, 7]),
        entry(2, "FUNCTION", "public", "f()", &[3, 1]),
        entry(3, "TYPE", "public", "t", &[2, 3]),
        entry(4, "TABLE ATTACH", "public", "a", &[1, 1, 4]),
    ];
    let selection = Selection { tables: vec!["a".into()], ..Selection::default() };
    assert_eq!(selection.pick(&circle).unwrap().ids, [1, 2, 3, 4]);
}
