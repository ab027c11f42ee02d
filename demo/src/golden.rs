//! Values every implementation must reproduce.
//!
//! All but [`FIFTY_WINDOWS`] and [`LARGE`] come from `tests/peers/demo_golden.py`, which shares nothing with this crate: integers,
//! Fractions, operations rounded correctly, its own BLAKE3. With `--check` it compares what it finds with this file.

/// θ after three windows of five small submissions: aggregate, decode and outer step.
pub const SMALL_THETA: &str = "80710023e6ad0c07a80748444c50c8bf764936c639edb0696cfd7a62edd9c59e";
/// BLAKE3 of the hashes of Δ of each of those windows, before signs are taken.
pub const SMALL_DELTA: &str = "40304b9e3be8017b510bab1aeeef2da9419284c2591c10dca673dfd5c1cd66b6";
/// BLAKE3 of the hashes of those submissions' objects: the wire format up to the trailer.
pub const SMALL_OBJECTS: &str = "b26c4bf0d643fe9cd8de2ac2d6ec1155a284271042eedd78b7325c416e3e7b4e";
/// State tag of that θ.
pub const SMALL_TAG: &str = "938943f96680bcb04c9d24e768ace300232686f470167dbec67d9f031f187443";
/// As [`SMALL_THETA`], of one chunk of 64 × 64 with 32 entries.
pub const FULL_THETA: &str = "30115825fd9e08777eff9c7bf4473a255fc4175370eea0bd27f03e7b9f98a7b2";
/// As [`SMALL_DELTA`], of that chunk.
pub const FULL_DELTA: &str = "a39421331e0d36e8a0f3608b9470b3a6e41ffeb4cd38cc6ef3df4c2f81088a91";
/// As [`SMALL_OBJECTS`], of that chunk.
pub const FULL_OBJECTS: &str = "1e2ca755a0a95cfe504a6b670f21d32a97f11469f6f05e51b7389bf65785a127";
/// As [`SMALL_THETA`], of the same tensors with one bit a value.
pub const ONE_BIT_THETA: &str = "501b1c5c0f72022bb6fd6247cd684fe8d4a3e31d06b945a0c4bca91bbf1c43c9";
/// As [`SMALL_DELTA`], of those.
pub const ONE_BIT_DELTA: &str = "b41f094a93c1ea00101133cb0e319065f219feda7ab7f7dc66754ae9456a36e5";
/// As [`SMALL_OBJECTS`], of those.
pub const ONE_BIT_OBJECTS: &str = "acd53b05d04f452602d30599c085ad222309666955c8784dde68d62bcbc8561f";
/// θ after 50 windows of 8 peers, from gradients on: equal on every path, thread count, profile and processor.
pub const FIFTY_WINDOWS: &str = "b20e971ff1bee5fc148e2ebd1bc424f2b14521cff6cf8031f4d8c294420c2230";
/// Submissions, a trial and θ of three windows of four peers, over tensors that several threads share.
pub const LARGE: &str = "14060b8e9eab1c0219c9bd17deb52ccf9297a5c9fb075bd32a6d96b1df60f4fc";

/// BLAKE3 of the little-endian rates after 0 to 399 applied steps: peak 0.004, 37 steps of warm-up, 311 of cosine, floor 0.1.
pub const RATES: &str = "4e4914ffefa9751fe67da648eebae254b1c144fd9ac162007bedfce45f76f992";

/// [`crate::dct::basis_hash`] of N = 1…64.
pub const BASES: [&str; 64] = [
    "1628d491647767ca75acfd2183da4631eef590e9c8129503574e36927c16521c",
    "38794d398a8a1faed08f98bb0c9bc829cf2ba5e2ddae3534bcccd32bddd849ca",
    "a3d78d305599cad777a57dfa3e24cd4b754408e2d1cfa4ab20450ca1e0a1c826",
    "273d9f26d7e08771fa77cd1f803b4828a02218eed794a01b8edd6da27251512e",
    "8a49906248b8ed5d8994ff27b473e62aa5540b8f9a98837da8e6307d99914d2d",
    "914aad396b8defff6bfb0b84730b1968e13ca2d74f75df66d7fd701311237dd0",
    "7ca832e5f62675b7c2fa2643317ff4106c51abc114a415b0d7f25e3562f91492",
    "3219b233b3518351f0b49ce681e73b36d57e7b494295ca9389502af193c059be",
    "6d51da1985e511f004bcc9ddfd260c0d5f07f4e366c384a32270024fcfb6fc38",
    "d7ca80d28a05670f29aeeaa06d36b93315738ddbcd2a53283396eb5887df6684",
    "e47aeb3fd6495629de2414bee45549b445b7785863e727edd8daa6fd067d5975",
    "5af62d93452b65fe66d3e2836dc642d8a9e29ae51c4adabb3a23451b3bb8f69f",
    "b66abb8b280a68742c634f4d21b30cabdfe054ca779ab6e9046e9d122ddf1a1c",
    "e41d30396f25bd3545eb5c8782e4a5dbfd1119b8037fbc6db3293db7cc80b055",
    "2cd6eac01149bfc5e4237b7561dc2a9d60bad4eee733d400f7489b2531e8699e",
    "e29c8cfb45768f827d03a268ed74aa32fc4a4e0fe119a4bac2336d514f3f160b",
    "74212e46473ddcb72c98b50fac2407388d35623050d0904d92761ccef188d013",
    "815d8c5879ac51bc1630eca7f4b2c5c0e860541dadca23a9f2334fe94efb225c",
    "4e29433da3af67f1d51acf4d52dc3b3cfe0fd357d76c262d3abd5a17ebfdadef",
    "91f3689179235a83b556915d8df5c4f8034fe352d353b8f688c52c62ec4f44ad",
    "ebb04155ff616a66148428ba3e88abc06be1ef1e16e170469ee1ee78b4d08e4d",
    "06074603cd78ab248ee16b2d6505a732489eab487c8a03936eb848aa762411f1",
    "5404ba7f5d47c94f4f5c616cf2ff1bf7eb6a7f47024dd695b7099a6aebc7017c",
    "ef678bfeda020b0f34d8870d6921453e888e880f4d6bae86b4598300a494ebda",
    "ad70e3af08632256fead59f480041046b8f257f42a12515f490f6e085e4d042e",
    "c1bf4f3e297f9a2466db7f373c40daa0f0ff52747dbe25151d51de7f742d0577",
    "4c24d745451f93d88e841b53d16de4f2caf85efedb52d1d15c21c2a7a3771963",
    "5150efa2d8577deb560e3f30f107a674e853871cc3743f9c430953d952d97e83",
    "6f2e72c515dc9b60b7ac1d60fb48216733bdba1823c121f107d5529cc0b3d5d2",
    "c192380bf6ccedb4ee06c14bc77abc215768486fe3a96bd53ce8a492c7af8903",
    "a12ff0d04787456862f7861d2aabde2df71443a7c3fe578597605ef616773e57",
    "7aeac6cf9e5652bd52a9ca3068795ddad1c57db514b1fc8330f9983e46e9b402",
    "604dc38abbf866e8c03a8fe2f82a1b122888d6c8637c09af675b46f6a8dfb76c",
    "a208e4432730e7379ecb341a11052427a04ecb3d211ee0a19d6dddad32ecda28",
    "ed7822c634b3bcfcbf3f470a4b70a68fac2e132db0e9cf9b0e44f22446b29b8b",
    "ab8f6850cd9c5cdf854bc118f583e98f9c29da1833659020feeeb2f41e6e9ba1",
    "a14ed83fa16315922b8921e687423658fe74e5781717bfe38092b518a42b9758",
    "f15c638f22a97ddf9afafd72eac371fc6380bf5ff210f777803c73d769103c8a",
    "84f1526b65d5e9194a459ef9acfce359beecf5573c978096a15a44bf4a1655e6",
    "a915f0cbf8dcbabaf97ea51ab39d4bc7d1cff5ff7eeac1116766d9dd23dcdf94",
    "5db9cce03c6ae3f4abf3b09925a8842a895a6f87ea21c8311b5efb53bb5ef7ff",
    "b19d846c846398d837e0207022e1f1c8bcb3e9a074028aa8eab6280948e893c0",
    "b0437ccf74494cae7b86567e0d2af6befcf828948485c91e8ae010581102e40e",
    "4e37f1fa33d2241b7be0230dd06e5aa1ab79537b3e3f0a01a51647efa7f4a1d6",
    "a4d3f2d3ca8aa91415d37975608173eb04eba4b431b4454e09f600f6670fd2b1",
    "10f63402c568545ed4e553d743a66436c536ca041cada7f8bf746470f31e0605",
    "3e956b9b877fe7d8cf2219e3ca86260d7a4b6833562534297fd34b64881ed947",
    "f52f71e4e2e12341efadc8082386d26f587f4900b62d63db9d2de5a805a09291",
    "1c49e318c9ac68290a59e013791667ed466887c6cfdd1d92303589ff3f1bec9d",
    "67db92777b1b42049fd2f15099fb46520bb8b6b3bd90ecfd4dafc59d5df7e9ec",
    "042aa68fb53b227882ebe12e18116c335c57977e750abff035436c7d55e40df2",
    "3336358d53a9d826d42c2e6da9101d54b29a613fa5661eb86698319038a49ddd",
    "a7506a3175b26983733f82680dd66abc1af666c400115a3bc82ce9fa32697a22",
    "311459adb62bf0b89f412d6971b4a810759b427174ab69abe0d0a03dccc13d4f",
    "0315d4b65f5b3185f5a7f80ed436ccdc8b30b1a80846340db7ed5ec15d5ed09a",
    "78ab3e3aeb364cf3c3ba8599600c53d1bc7605492655df6be0b7bc8a7e35abe5",
    "f00eef8322f72d1efd44a15b075cb0c884f6c6acb0081b4fd8dac35175ec2826",
    "cc4cf4aa15ce484e88123aa3b2d7edf928968513bb5ce860086f6387dd981fcf",
    "ea7f6b1cbf734f34cd7fc5bb37d78e50297f2134ce791dc13901364b6a14f5fe",
    "c19a2cc05e6ebcf0a0483e7286cde287f969e9126e7b721c3afbcad4b3900bda",
    "e0ebb99907a31948ada26e79e3ae6523dc1e7585fae1d89fba555d2859f31176",
    "cd479150445d9682487a212c2b69da6f206245885ea2ef497ff5214a0ef4eb5f",
    "469c9f71b3ff56afa7363efc73d9dfd4104194a585ffe0d84e529661447c0e65",
    "a577cb8c0e6c4ee0e5f8f986a1319943b22faf9cd7f39477e1efb04b30a3708d",
];
