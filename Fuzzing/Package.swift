// swift-tools-version: 6.2
// A separate package, so that users of virt-walker do not get the dependencies of fuzzing. scripts/fuzz builds and runs
// it.
import PackageDescription

let strict: [SwiftSetting] = [
  .swiftLanguageMode(.v6),
  .enableUpcomingFeature("ExistentialAny"),
  .enableUpcomingFeature("MemberImportVisibility"),
]

/// One fuzzer: an executable that passes libFuzzer's inputs to a part of virt-walker.
func fuzzer(_ name: String, of modules: [String]) -> Target {
  .executableTarget(
    name: "fuzz-\(name)",
    dependencies: ["FuzzSupport"]
      + modules.map { .product(name: $0, package: "virt-walker") },
    swiftSettings: strict)
}

let package = Package(
  name: "fuzzing",
  dependencies: [.package(name: "virt-walker", path: "..")],
  targets: [
    .target(name: "FuzzSupport", swiftSettings: strict),
    fuzzer("scenario", of: ["Scenarios"]),
    fuzzer(
      "control",
      of: ["CharacterDeviceServer", "Inspection", "Scenarios", "Stage2Sim", "VirtWalkerDevice"]),
    fuzzer("syndrome", of: ["Stage2Sim", "VirtWalkerDevice"]),
    fuzzer("descriptor", of: ["Inspection", "Scenarios", "Stage2Sim", "VirtWalkerDevice"]),
    fuzzer("replay", of: ["Scenarios", "VirtWalkerDevice"]),
  ]
)
