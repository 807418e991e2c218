// swift-tools-version: 6.2
// A separate package, so that users of virt-walker do not get the dependencies of measurements. scripts/bench builds
// and runs it.
import PackageDescription

let strict: [SwiftSetting] = [
  .swiftLanguageMode(.v6),
  .enableUpcomingFeature("ExistentialAny"),
  .enableUpcomingFeature("MemberImportVisibility"),
]

let package = Package(
  name: "benchmarks",
  dependencies: [
    .package(name: "virt-walker", path: ".."),
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
    .package(url: "https://github.com/apple/swift-system", from: "1.8.1"),
    .package(url: "https://github.com/HdrHistogram/hdrhistogram-swift", from: "0.2.0"),
  ],
  targets: [
    .executableTarget(
      name: "node-bench",
      dependencies: [
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
        .product(name: "Histogram", package: "hdrhistogram-swift"),
      ],
      swiftSettings: strict
    ),
    .executableTarget(
      name: "model-bench",
      dependencies: [
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
        .product(name: "CharacterDeviceServer", package: "virt-walker"),
        .product(name: "Inspection", package: "virt-walker"),
        .product(name: "Scenarios", package: "virt-walker"),
        .product(name: "Stage2Sim", package: "virt-walker"),
        .product(name: "VirtWalkerDevice", package: "virt-walker"),
      ],
      swiftSettings: strict
    ),
    .executableTarget(
      name: "bare-node",
      dependencies: [
        .product(name: "CharacterDeviceServer", package: "virt-walker"),
        .product(name: "Inspection", package: "virt-walker"),
        .product(name: "Scenarios", package: "virt-walker"),
        .product(name: "Stage2Sim", package: "virt-walker"),
        .product(name: "SystemPackage", package: "swift-system"),
        .product(name: "VirtWalkerDevice", package: "virt-walker"),
      ],
      swiftSettings: strict
    ),
  ]
)
