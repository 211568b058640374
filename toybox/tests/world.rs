//! What the world promises to those who learn from it.

#![allow(clippy::unreadable_literal, reason = "checksums have no thousands")]

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use toybox::{
    Accessory, Background, Class, Colour, Concept, NEAR, Person, Placement, Pose, Rng, SIZE, Scene,
    Style, Subject, Thing, VOCABULARY, World,
};

fn checksum(scene: &Scene) -> u32 {
    crc32fast::hash(scene.draw().as_raw())
}

fn people(world: World, count: u64) -> impl Iterator<Item = Scene> {
    (0..count).map(move |seed| {
        let rng = &mut Rng::new(seed);
        Scene {
            world,
            subject: Subject::Person(Person::sample(world, rng)),
            background: Background::Grass,
            background_seed: seed,
            style: Style::Photo,
            accessory: None,
            placement: Placement::sample(world, rng).for_person(world),
        }
    })
}

/// Checksums of scenes at every place, of every concept, of four people.
fn drawn(world: World) -> [Vec<u32>; 3] {
    let styles = world.styles();
    let places = world.backgrounds().iter().zip(0..).map(|(&background, k)| {
        let style = styles[k as usize % styles.len()];
        checksum(&Scene { background, style, ..toybox::sample(world, 2024, k).0 })
    });
    let hat = Some(Accessory::Hat(Colour::Red));
    let concepts = world.concepts().iter();
    let concepts = concepts.map(|c| checksum(&c.scene(Background::Floor, Style::Photo, hat, 3)));
    let people = people(world, 4).map(|scene| checksum(&scene));
    [places.collect(), concepts.collect(), people.collect()]
}

#[test]
fn the_same_seed_draws_the_same_pixels_on_every_machine() {
    assert_eq!(drawn(World::Fine), PINNED_FINE.map(<[u32]>::to_vec));
    assert_eq!(drawn(World::Bold), PINNED_BOLD.map(<[u32]>::to_vec));
}

#[test]
fn a_sample_does_not_depend_on_the_samples_before_it() {
    let in_order: Vec<_> = (0..8).map(|k| toybox::sample(World::Fine, 5, k)).collect();
    let alone = toybox::sample(World::Fine, 5, 7);
    assert_eq!(in_order[7], alone);
    assert_ne!(in_order[6], alone);
}

#[test]
fn no_sample_of_the_base_is_near_a_held_out_concept() {
    for world in World::ALL {
        let nearest = |thing: &Thing| {
            let concepts = world.concepts().iter();
            concepts.map(|concept| concept.distance(thing)).fold(f32::INFINITY, f32::min)
        };
        let mut things = 0;
        for index in 0..10_000 {
            if let Subject::Thing(thing) = toybox::sample(world, 1, index).0.subject {
                things += 1;
                assert!(nearest(&thing) >= NEAR, "sample {index} is a held-out concept: {thing:?}");
            }
        }
        assert!(things > 7_500);
        // The rule bites: things that nobody filters do come near.
        let rng = &mut Rng::new(1);
        let unfiltered = (0..10_000).filter(|_| nearest(&Thing::sample(rng)) < NEAR).count();
        assert!(unfiltered > 5, "only {unfiltered} of 10,000");
    }
}

#[test]
fn captions_are_lower_case_words_of_the_vocabulary_and_use_all_of_it() {
    let known: HashSet<&str> = VOCABULARY.into_iter().collect();
    let mut used = HashSet::new();
    for index in 0..10_000 {
        let world = World::ALL[index as usize % 2];
        let (scene, caption) = toybox::sample(world, 3, index);
        for text in [caption, scene.full_caption()] {
            for word in text.split(' ') {
                let word =
                    *known.get(word).unwrap_or_else(|| panic!("unknown word '{word}' in '{text}'"));
                assert!(word.bytes().all(|byte| byte.is_ascii_lowercase()));
                used.insert(word);
            }
        }
    }
    assert_eq!(used, known);
}

#[test]
fn captions_name_the_class_always_and_the_rest_sometimes() {
    let (mut colour, mut place, mut style) = (0, 0, 0);
    let mut things = 0;
    for index in 0..2_000 {
        let (scene, caption) = toybox::sample(World::Fine, 4, index);
        let Subject::Thing(thing) = scene.subject else {
            assert!(caption.contains("a person"));
            continue;
        };
        things += 1;
        assert!(caption.split(' ').any(|word| word == thing.class.name()), "{caption}");
        assert!(!caption.contains("a orange") && !caption.contains("an red"), "{caption}");
        let article = format!("{} {}", thing.skin.main.name(), thing.class.name());
        colour += usize::from(caption.contains(&article));
        place += usize::from(caption.ends_with(scene.background.phrase()));
        style += usize::from(caption.starts_with(scene.style.phrase()));
    }
    for named in [colour, place, style] {
        assert!(named > things / 4 && named < things * 19 / 20, "{named} of {things}");
    }
}

#[test]
fn a_caption_reads_as_english() {
    let concept = World::Fine
        .concepts()
        .iter()
        .find(|concept| concept.thing.class == Class::Cat)
        .expect("there is a cat");
    let scene =
        concept.scene(Background::Snow, Style::Watercolor, Some(Accessory::Hat(Colour::Orange)), 0);
    assert_eq!(
        scene.full_caption(),
        "a watercolor of an orange and white striped cat wearing an orange hat in the snow"
    );
    assert_eq!(
        scene.prompt("a <tom>"),
        "a watercolor of a <tom> wearing an orange hat in the snow"
    );
}

#[test]
fn all_joints_lie_inside_the_picture() {
    for (seed, scene) in World::ALL.into_iter().flat_map(|world| people(world, 2_000).enumerate()) {
        for (k, (x, y)) in scene.joints().expect("a person").into_iter().enumerate() {
            let inside = |v: f32| (0.0..SIZE as f32).contains(&v);
            assert!(inside(x) && inside(y), "person {seed}: {} at ({x}, {y})", toybox::JOINTS[k]);
        }
    }
}

#[test]
fn joints_lie_on_the_person() {
    // The person is where two pictures of different people in the same pose and place differ.
    for scene in World::ALL.into_iter().flat_map(|world| people(world, 20)) {
        let Subject::Person(person) = scene.subject else { unreachable!() };
        let mut other = person;
        other.looks.tone = (person.looks.tone + 3) % 6;
        let next = |colour: Colour| {
            Colour::ALL[(Colour::ALL.iter().position(|&c| c == colour).unwrap() + 5) % 12]
        };
        other.looks.top.main = next(person.looks.top.main);
        other.looks.bottom.main = next(person.looks.bottom.main);
        other.looks.top.second = next(person.looks.top.second);
        other.looks.bottom.second = next(person.looks.bottom.second);
        let (a, b) = (scene.draw(), Scene { subject: Subject::Person(other), ..scene }.draw());
        for joint in [1, 2, 3, 4, 5, 6, 7, 9, 12] {
            let (x, y) = scene.joints().expect("a person")[joint];
            let differs = a.get_pixel(x as u32, y as u32) != b.get_pixel(x as u32, y as u32);
            assert!(differs, "{} at ({x}, {y}) is not on the person", toybox::JOINTS[joint]);
        }
    }
}

#[test]
fn a_mirrored_pose_mirrors_the_joints_and_exchanges_left_and_right() {
    let pair = |k: usize| match k {
        0 | 1 => k,
        2..=4 | 8..=10 => k + 3,
        5..=7 | 11..=13 => k - 3,
        14 | 16 => k + 1,
        _ => k - 1,
    };
    for mut scene in World::ALL.into_iter().flat_map(|world| people(world, 20)) {
        scene.placement = Placement { x: 64.0, angle: 0.0, ..scene.placement };
        let joints = scene.joints().expect("a person");
        let Subject::Person(Person { looks, pose }) = scene.subject else { unreachable!() };
        scene.subject = Subject::Person(Person { looks, pose: pose.mirrored() });
        let mirrored = scene.joints().expect("a person");
        for k in 0..18 {
            assert!((joints[k].0 + mirrored[pair(k)].0 - 128.0).abs() < 1e-3);
            assert!((joints[k].1 - mirrored[pair(k)].1).abs() < 1e-3);
        }
    }
}

#[test]
fn a_standing_person_has_the_right_arm_on_the_left_of_the_picture() {
    let mut scene = people(World::Fine, 1).next().expect("one person");
    let Subject::Person(person) = &mut scene.subject else { unreachable!() };
    person.pose = Pose::STANDING;
    let joints = scene.joints().expect("a person");
    assert!(joints[4].0 < joints[7].0, "wrists");
    assert!(
        joints[0].1 < joints[1].1 && joints[1].1 < joints[8].1 && joints[8].1 < joints[10].1,
        "from head to foot"
    );
}

#[test]
fn concepts_cover_all_classes_and_differ_from_each_other() {
    let worlds = World::ALL.map(World::concepts);
    for concepts in worlds {
        assert_eq!(
            concepts.iter().map(|concept| concept.thing.class).collect::<HashSet<_>>().len(),
            12
        );
        assert_eq!(concepts.iter().map(|concept| concept.name).collect::<HashSet<_>>().len(), 12);
        for (k, a) in concepts.iter().enumerate() {
            assert!(a.is_near(&a.thing));
            assert_ne!(a.thing.skin.main, a.thing.skin.second);
            for b in &concepts[k + 1..] {
                assert!(!a.is_near(&b.thing), "{} and {}", a.name, b.name);
            }
        }
    }
}

#[test]
fn photos_of_a_concept_show_five_places_and_nothing_worn() {
    for concept in World::ALL.into_iter().flat_map(World::concepts) {
        let photos = concept.photos();
        assert_eq!(photos.iter().map(|scene| scene.background).collect::<HashSet<_>>().len(), 5);
        for scene in photos {
            assert_eq!((scene.style, scene.accessory), (Style::Photo, None));
            assert_eq!(scene.subject, Subject::Thing(concept.thing));
        }
    }
}

#[test]
fn every_gene_shows_in_the_picture() {
    for concept in World::ALL.into_iter().flat_map(World::concepts) {
        let scene = concept.scene(Background::Kitchen, Style::Photo, None, 0);
        let base = checksum(&scene);
        let with = |change: &dyn Fn(&mut Thing)| {
            let mut thing = concept.thing;
            change(&mut thing);
            checksum(&Scene { subject: Subject::Thing(thing), ..scene })
        };
        for gene in 0..3 {
            assert_ne!(
                base,
                with(&|thing| thing.shape[gene] = 0.5),
                "{}: shape {gene}",
                concept.name
            );
        }
        assert_ne!(
            base,
            with(&|thing| thing.skin.main = Colour::Gray),
            "{}: main colour",
            concept.name
        );
        assert_ne!(
            base,
            with(&|thing| thing.skin.second = Colour::Gray),
            "{}: second colour",
            concept.name
        );
    }
}

#[test]
fn folders_hold_what_their_documentation_says() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    toybox::dataset(&at("data"), World::Fine, 2, 9).unwrap();
    toybox::people(
        &at("people"),
        World::Fine,
        [1, 0],
        9,
        toybox::Place::Studio,
        toybox::Layout::Fpdm,
    )
    .unwrap();
    toybox::concepts(&at("concepts"), World::Fine).unwrap();
    assert_eq!(
        image::open(at("data/000001.png")).unwrap().to_rgb8(),
        toybox::sample(World::Fine, 9, 1).0.draw()
    );
    assert_eq!(
        std::fs::read_to_string(at("data/000001.txt")).unwrap().trim_end(),
        toybox::sample(World::Fine, 9, 1).1
    );
    let pair: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(at("people/genes/0000.json")).unwrap())
            .unwrap();
    assert_eq!(pair["source_joints"].as_array().unwrap().len(), 18);
    for concept in World::Fine.concepts() {
        let genes = at("concepts").join(format!("{}.toml", concept.name));
        let text = std::fs::read_to_string(genes).unwrap();
        let read: Concept<String> = toml::from_str(&text).unwrap();
        assert_eq!((read.name.as_str(), read.thing), (concept.name, concept.thing));
        assert!(at("concepts").join(concept.name).join("4.png").exists());
    }
}

const PINNED_FINE: [&[u32]; 3] = [
    &[
        2379389411, 1813120970, 840632124, 2045004564, 2881502343, 3038777567, 1819840299,
        713701613, 2321503600, 3082932652,
    ],
    &[
        2050828215, 2292688340, 2448953327, 1040501070, 3944838379, 488644439, 2182290349,
        2031670361, 354041743, 421831441, 1591864086, 1630550786,
    ],
    &[1638230318, 2030849017, 4177782729, 3089064939],
];
const PINNED_BOLD: [&[u32]; 3] = [
    &[441211066, 3025190974, 1448729362, 2336672397, 1453076863, 3590773673, 4164631694, 232606507],
    &[
        3678238299, 1139924162, 3633059774, 4071765354, 3459081658, 664944607, 1171363862,
        4202963853, 1435600334, 3162325696, 2226787534, 2747565251,
    ],
    &[1025826362, 4026984082, 2260381652, 1331231790],
];

#[test]
fn the_shipped_photos_are_those_that_the_concepts_draw() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/toybox/concepts");
    for concept in World::Fine.concepts() {
        for (k, scene) in concept.photos().iter().enumerate() {
            let path = shipped.join(concept.name).join(format!("{k}.png"));
            assert_eq!(image::open(&path).unwrap().to_rgb8(), scene.draw(), "{}", path.display());
        }
    }
    // Nothing else lies among the photos, or training would warn of it; the genes lie beside the folders.
    for entry in std::fs::read_dir(&shipped).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            assert_eq!(std::fs::read_dir(&entry).unwrap().count(), 5, "{}", entry.display());
        }
        let name = entry.file_stem().unwrap().to_str().unwrap();
        assert!(
            World::Fine.concepts().iter().any(|concept| concept.name == name),
            "{}",
            entry.display()
        );
    }
    assert_eq!(std::fs::read_dir(&shipped).unwrap().count(), 2 * World::Fine.concepts().len());
}

/// Left, top, right and bottom edge of a subject, in pixels.
fn bounds(scene: &Scene) -> [u32; 4] {
    let mask = scene.silhouette();
    let inside = |(_, _, pixel): &(u32, u32, &image::Rgb<u8>)| pixel.0[0] > 127;
    mask.enumerate_pixels().filter(inside).fold([SIZE, SIZE, 0, 0], |[l, t, r, b], (x, y, _)| {
        [l.min(x), t.min(y), r.max(x + 1), b.max(y + 1)]
    })
}

#[test]
fn subjects_of_the_bold_world_fill_half_to_three_quarters_of_the_picture_and_stay_inside() {
    let mut sizes: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    let mut cut = Vec::new();
    for index in 0..2_000 {
        let scene = toybox::sample(World::Bold, 11, index).0;
        let name = match scene.subject {
            Subject::Thing(thing) => thing.class.name(),
            Subject::Person(_) => "person",
        };
        let [left, top, right, bottom] = bounds(&scene);
        if left == 0 || top == 0 || right == SIZE || bottom == SIZE {
            cut.push(format!("{index}: a {name} from {left}, {top} to {right}, {bottom}"));
        }
        if scene.accessory.is_none() {
            sizes.entry(name).or_default().push(f64::from((right - left).max(bottom - top)));
        }
    }
    assert_eq!(cut, Vec::<String>::new());
    for (name, sizes) in sizes {
        // A raised arm makes a person taller.
        let most = if name == "person" { 106.0 } else { 98.0 };
        let mean = sizes.iter().sum::<f64>() / sizes.len() as f64;
        assert!((78.0..most).contains(&mean), "a {name} is {mean:.0} pixels tall or wide");
    }
}

#[test]
fn people_of_the_bold_world_have_two_eyes_of_seven_pixels_and_more() {
    let (mut seen, mut asked) = (0, 0);
    for scene in people(World::Bold, 100) {
        let picture = scene.draw();
        let joints = scene.joints().expect("a person");
        for (x, y) in [joints[14], joints[15]] {
            // A dark pupil, white to its left or right and above or below.
            let at = |dx: f32, dy: f32| picture.get_pixel((x + dx) as u32, (y + dy) as u32).0;
            let white = |dx, dy| at(dx, dy).iter().all(|&level| level > 150);
            let dark = at(0.0, 0.5).iter().all(|&level| level < 110);
            asked += 1;
            let across = white(-3.7, 0.0) || white(3.7, 0.0);
            seen += u32::from(dark && across && (white(0.0, -4.0) || white(0.0, 4.2)));
        }
    }
    // Hands hide some.
    assert!(seen * 100 >= asked * 85, "{seen} of {asked} eyes");
}
