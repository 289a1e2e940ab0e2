//! What a file of settings may say, and how it is refused.

use super::*;

const HEAD: &str = "journal = 'j'\n[cluster]\nservers = 'nats://a:1'\n";

fn refused(rest: &str) -> String {
    match Config::parse(&format!("{HEAD}{rest}"), Path::new("/at")) {
        Err(cause) => cause.to_string(),
        Ok(config) => panic!("{rest}: {config:?}"),
    }
}

#[test]
fn each_word_reaches_the_setting_of_its_name() {
    let text = format!(
        "{HEAD}prefix = 'shop'\nreplicas = 1\nuser = 'u'\npassword = 'hush'\ntls = {{ roots = 'ca.pem' }}\n\
         [[outward]]\nname = 'nats'\ntopic = 'orders'\nhold = 9\nuncopied = 'skip'\ntake_over = true\nrefuse_large = false\npartitions = 4\n\
         max_message = 100\nwindow = {{ messages = 7, bytes = 8, answer = '3s', pause = '5ms', packed = 9 }}\n\
         [[inward]]\nname = 'in'\ntopic = 'quotes'\nfrom = 'orders'\nprefix = 'other'\n"
    );
    let config = Config::parse(&text, Path::new("/at")).unwrap();
    assert_eq!((config.journal.to_str(), config.cluster.replicas), (Some("/at/j"), 1));
    assert_eq!(config.cluster.tls.as_ref().unwrap().roots.as_deref(), Some(Path::new("/at/ca.pem")));
    assert!(!format!("{config:?}").contains("hush"));
    let settings = format!("{:?}", config.outward[0].settings());
    let (answer, pause) = (Duration::from_secs(3), Duration::from_millis(5));
    let expected = Bridge::outward("nats").hold(9).uncopied(Uncopied::Skip).refuse_large(false).take_over(true);
    let expected = expected.window(Window { messages: 7, bytes: 8, answer, pause, packed: 9 });
    assert_eq!(settings, format!("{expected:?}"));
    assert_eq!((config.outward[0].topic.partitions, config.outward[0].topic.max_message), (Some(4), Some(100)));
    assert_eq!(config.inward[0].topic.name, "quotes");
    let least = Config::parse(&format!("{HEAD}[[outward]]\nname = 'n'\ntopic = 't'\n"), Path::new("")).unwrap();
    assert_eq!(format!("{:?}", least.outward[0].settings()), format!("{:?}", Bridge::outward("n")));
}

#[test]
fn what_is_wrong_is_named() {
    let outward = "[[outward]]\nname = 'n'\ntopic = 't'\n";
    for (rest, expected) in [
        ("replica = 3\n".to_owned(), "replica"),
        (format!("{outward}wndow = 3\n"), "[[outward]] \"n\": \"wndow\" is no setting"),
        (format!("{outward}window = {{ mesages = 1 }}\n"), "mesages"),
        (format!("{outward}window = {{ answer = '3' }}\n"), "\"3\" is no duration"),
        (format!("{outward}uncopied = 'drop'\n"), "neither \"stop\" nor \"skip\""),
        ("[[outward]]\nname = 'n'\n".to_owned(), "topic"),
        (format!("{outward}{outward}"), "used twice"),
        (format!("{outward}[[outward]]\nname = 'm'\ntopic = 't'\n"), "two bridges"),
        (format!("{outward}[[inward]]\nname = 'in'\ntopic = 't'\n"), "import the streams of other machines"),
        ("user = 'u'\n".to_owned(), "belong together"),
        ("token = 't'\nkey = 'k'\n".to_owned(), "take one of"),
        ("replicas = 0\n".to_owned(), "from 1 to 5"),
        (format!("{outward}[lease]\nlasts = '1s'\n"), "at least 6s"),
        (format!("{outward}[lease]\nprogram = []\n"), "names no program"),
        ("[lease]\n".to_owned(), "nothing to take over"),
        ("tls = { key = 'k' }\n".to_owned(), "belong together"),
    ] {
        let cause = refused(&rest);
        assert!(cause.contains(expected), "{rest}: {cause}");
    }
    let gone = Config::read(Path::new("/none/bridge.toml")).unwrap_err().to_string();
    assert!(gone.contains("/none/bridge.toml"), "{gone}");
}

#[test]
fn an_imported_topic_has_room_for_the_header_of_its_records_and_one_size_if_it_is_copied_too() {
    let text = "[[outward]]\nname = 'n'\ntopic = 'both'\nmax_message = 2000\n[[outward]]\nname = 'o'\ntopic = 'out'\n\
        [[inward]]\nname = 'a'\ntopic = 'both'\nprefix = 'other'\nmax_message = 3000\n\
        [[inward]]\nname = 'b'\ntopic = 'in'\n";
    let config = Config::parse(&format!("{HEAD}{text}"), Path::new("")).unwrap();
    let outward: Vec<_> = config.outward.iter().map(|at| at.topic.max_message).collect();
    let inward: Vec<_> = config.inward.iter().map(|at| at.topic.max_message).collect();
    let with_header = |bytes: usize| Some(bytes + Record::ORIGIN_SIZE);
    assert_eq!((outward, inward), (vec![with_header(3000), None], vec![with_header(3000), with_header(1024)]));
}
