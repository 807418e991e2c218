// swift-tools-version: 6.2
import PackageDescription

let strict: [SwiftSetting] = [
  .swiftLanguageMode(.v6),
  .enableUpcomingFeature("ExistentialAny"),
  .enableUpcomingFeature("MemberImportVisibility"),
]

let package = Package(
  name: "virt-walker",
  products: [
    .library(name: "Stage2Sim", targets: ["Stage2Sim"]),
    .library(name: "Scenarios", targets: ["Scenarios"]),
    .library(name: "CharacterDeviceServer", targets: ["CharacterDeviceServer"]),
    .library(name: "VirtWalkerDevice", targets: ["VirtWalkerDevice"]),
    .library(name: "UserCode", targets: ["UserCode"]),
    .library(name: "Inspection", targets: ["Inspection"]),
    .library(name: "KernelLab", targets: ["KernelLab"]),
    .executable(name: "virt-walkerd", targets: ["virt-walkerd"]),
    .executable(name: "virt-walker-page", targets: ["virt-walker-page"]),
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
    .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
    .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
    .package(url: "https://github.com/apple/swift-system", from: "1.8.1"),
    .package(url: "https://github.com/swiftlang/swift-subprocess", from: "1.0.2"),
  ],
  targets: [
    .systemLibrary(
      name: "CFuse",
      pkgConfig: "fuse3",
      providers: [.apt(["libfuse3-dev", "pkg-config"])]
    ),
    .systemLibrary(name: "CLinux"),
    .systemLibrary(
      name: "CSeccomp",
      pkgConfig: "libseccomp",
      providers: [.apt(["libseccomp-dev", "pkg-config"])]
    ),
    .target(name: "Stage2Sim", swiftSettings: strict),
    .target(name: "Scenarios", dependencies: ["Stage2Sim"], swiftSettings: strict),
    .target(
      name: "CharacterDeviceServer",
      dependencies: [
        "CFuse",
        "CLinux",
        "CSeccomp",
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      swiftSettings: strict
    ),
    .target(
      name: "VirtWalkerDevice",
      dependencies: [
        "CharacterDeviceServer",
        "Scenarios",
        "Stage2Sim",
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      swiftSettings: strict
    ),
    .target(
      name: "PageTableCases",
      dependencies: ["Stage2Sim", "VirtWalkerDevice"],
      swiftSettings: strict
    ),
    .target(
      name: "Inspection",
      dependencies: [
        "CharacterDeviceServer",
        "Scenarios",
        "Stage2Sim",
        "VirtWalkerDevice",
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      swiftSettings: strict
    ),
    .systemLibrary(name: "CUserCode", path: "Kernel/runtime"),
    .target(
      name: "UserCode",
      dependencies: [
        "CLinux",
        "CUserCode",
        "CharacterDeviceServer",
        "Scenarios",
        "Stage2Sim",
        "VirtWalkerDevice",
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      swiftSettings: strict
    ),
    .target(name: "Hashing", swiftSettings: strict),
    .target(
      name: "Pages",
      dependencies: [
        "Hashing",
        "Inspection",
        "Scenarios",
        "Stage2Sim",
        "VirtWalkerDevice",
      ],
      resources: [.embedInCode("Resources")],
      swiftSettings: strict
    ),
    .target(
      name: "KernelLab",
      dependencies: [
        "CLinux",
        "CharacterDeviceServer",
        "Hashing",
        "Scenarios",
        "UserCode",
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      swiftSettings: strict
    ),
    .systemLibrary(name: "CLabLink", path: "Kernel/lab"),
    .target(
      name: "KernelEngine",
      dependencies: [
        "CLabLink",
        "CLinux",
        "CharacterDeviceServer",
        "Scenarios",
        "Stage2Sim",
        "UserCode",
        "VirtWalkerDevice",
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      swiftSettings: strict
    ),
    .plugin(name: "SourceCommit", capability: .buildTool()),
    .executableTarget(
      name: "virt-walkerd",
      dependencies: [
        "CLinux",
        "CharacterDeviceServer",
        "Inspection",
        "KernelEngine",
        "KernelLab",
        "PageTableCases",
        "Pages",
        "Scenarios",
        "Stage2Sim",
        "UserCode",
        "VirtWalkerDevice",
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
        .product(name: "Logging", package: "swift-log"),
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      swiftSettings: strict,
      plugins: ["SourceCommit"]
    ),
    .executableTarget(
      name: "virt-walker-page",
      dependencies: [
        "CharacterDeviceServer",
        "Pages",
        "Stage2Sim",
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
        .product(name: "NIOConcurrencyHelpers", package: "swift-nio"),
        .product(name: "NIOCore", package: "swift-nio"),
        .product(name: "NIOHTTP1", package: "swift-nio"),
        .product(name: "NIOPosix", package: "swift-nio"),
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      swiftSettings: strict
    ),
    .systemLibrary(name: "CPageTable", path: "oracle/pgtable-harness"),
    .executableTarget(
      name: "pgtable-fuzz",
      dependencies: [
        "CPageTable",
        "PageTableCases",
        "SeededRandom",
        "Stage2Sim",
        "VirtWalkerDevice",
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
      ],
      path: "oracle/pgtable-fuzz",
      swiftSettings: strict
    ),
    .executableTarget(
      name: "scenario-generator",
      dependencies: [
        "Scenarios",
        "Stage2Sim",
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
      ],
      path: "oracle/generator",
      swiftSettings: strict
    ),
    .executableTarget(
      name: "node-checker",
      dependencies: [.product(name: "ArgumentParser", package: "swift-argument-parser")],
      swiftSettings: strict
    ),
    .executableTarget(
      name: "fault-checker",
      dependencies: [.product(name: "ArgumentParser", package: "swift-argument-parser")],
      swiftSettings: strict
    ),
    .executableTarget(
      name: "faulty-device",
      dependencies: [
        "CharacterDeviceServer",
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      path: "Tests/FaultyDevice",
      swiftSettings: strict
    ),
    .executableTarget(
      name: "mirror",
      dependencies: [
        "CharacterDeviceServer",
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      path: "Examples/Mirror",
      swiftSettings: strict
    ),
    .executableTarget(
      name: "queue-device",
      dependencies: [
        "CharacterDeviceServer",
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      path: "Examples/Queue",
      swiftSettings: strict
    ),
    .executableTarget(
      name: "ioctl-device",
      dependencies: [
        "CharacterDeviceServer",
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      path: "Examples/Ioctl",
      swiftSettings: strict
    ),
    .executableTarget(
      name: "memory-device",
      dependencies: [
        "CharacterDeviceServer",
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      path: "Examples/Memory",
      swiftSettings: strict
    ),
    .executableTarget(
      name: "access-counter",
      dependencies: ["Stage2Sim"],
      path: "Examples/AccessCounter",
      swiftSettings: strict
    ),
    .target(name: "SeededRandom", path: "Tests/SeededRandom", swiftSettings: strict),
    // Each folder in Tests with test targets is a layer: scripts/test runs the targets of a folder.
    .testTarget(
      name: "Stage2SimTests",
      dependencies: [
        "PageTableCases",
        "SeededRandom",
        "Stage2Sim",
        "VirtWalkerDevice",
        "access-counter",
        "pgtable-fuzz",
        .product(name: "Subprocess", package: "swift-subprocess"),
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      path: "Tests/Units/Stage2SimTests",
      swiftSettings: strict
    ),
    .testTarget(
      name: "ScenariosTests",
      dependencies: [
        "Scenarios", "SeededRandom", "Stage2Sim", "VirtWalkerDevice", "scenario-generator",
      ],
      path: "Tests/Units/ScenariosTests",
      swiftSettings: strict
    ),
    .executableTarget(
      name: "test-device",
      dependencies: [
        "CharacterDeviceServer",
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      path: "Tests/TestDevice",
      swiftSettings: strict
    ),
    .executableTarget(
      name: "guest-drivers",
      dependencies: [
        "CLinux",
        "CharacterDeviceServer",
        "Inspection",
        "Scenarios",
        "Stage2Sim",
        "VirtWalkerDevice",
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      path: "Tests/GuestDrivers",
      swiftSettings: strict
    ),
    .testTarget(
      name: "CharacterDeviceServerTests",
      dependencies: [
        "CharacterDeviceServer",
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      path: "Tests/Units/CharacterDeviceServerTests",
      swiftSettings: strict
    ),
    .testTarget(
      name: "VirtWalkerDeviceTests",
      dependencies: [
        "CharacterDeviceServer",
        "Scenarios",
        "Stage2Sim",
        "VirtWalkerDevice",
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      path: "Tests/Units/VirtWalkerDeviceTests",
      swiftSettings: strict
    ),
    .testTarget(
      name: "UserCodeTests",
      dependencies: [
        "CLinux",
        "CUserCode",
        "CharacterDeviceServer",
        "Inspection",
        "Scenarios",
        "SeededRandom",
        "Stage2Sim",
        "UserCode",
        "VirtWalkerDevice",
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      path: "Tests/Units/UserCodeTests",
      exclude: ["Code"],
      swiftSettings: strict
    ),
    .testTarget(
      name: "KernelLabTests",
      dependencies: [
        "CharacterDeviceServer",
        "Hashing",
        "KernelLab",
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      path: "Tests/Units/KernelLabTests",
      swiftSettings: strict
    ),
    .testTarget(
      name: "InspectionTests",
      dependencies: [
        "CFuse",
        "CharacterDeviceServer",
        "Inspection",
        "Scenarios",
        "SeededRandom",
        "Stage2Sim",
        "VirtWalkerDevice",
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      path: "Tests/Units/InspectionTests",
      swiftSettings: strict
    ),
    .testTarget(
      name: "PagesTests",
      dependencies: [
        "Inspection",
        "Pages",
        "Scenarios",
        "Stage2Sim",
        "VirtWalkerDevice",
      ],
      path: "Tests/Units/PagesTests",
      swiftSettings: strict
    ),
    .testTarget(
      name: "NodeCheckerTests",
      dependencies: ["SeededRandom", "node-checker"],
      path: "Tests/Units/NodeCheckerTests",
      swiftSettings: strict
    ),
    .testTarget(
      name: "CommandTests",
      dependencies: [
        "CharacterDeviceServer",
        "DaemonSupport",
        "Stage2Sim",
        "UserCode",
        "virt-walkerd",
        .product(name: "Subprocess", package: "swift-subprocess"),
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      path: "Tests/Units/CommandTests",
      swiftSettings: strict
    ),
    .target(
      name: "DaemonSupport",
      dependencies: [
        .product(name: "Subprocess", package: "swift-subprocess"),
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      path: "Tests/DaemonSupport",
      swiftSettings: strict
    ),
    .executableTarget(
      name: "sandbox-probe",
      dependencies: ["CLinux", "CharacterDeviceServer"],
      path: "Tests/SandboxProbe",
      swiftSettings: strict
    ),
    .testTarget(
      name: "FileServerTests",
      dependencies: [
        "CharacterDeviceServer",
        "DaemonSupport",
        "guest-drivers",
        "ioctl-device",
        "memory-device",
        "mirror",
        "queue-device",
        "sandbox-probe",
        "test-device",
        .product(name: "Subprocess", package: "swift-subprocess"),
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      path: "Tests/Device/FileServerTests",
      swiftSettings: strict
    ),
    .testTarget(
      name: "NodeCheckerMutationTests",
      dependencies: [
        "faulty-device",
        "node-checker",
        .product(name: "Subprocess", package: "swift-subprocess"),
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      path: "Tests/Device/NodeCheckerMutationTests",
      swiftSettings: strict
    ),
    .testTarget(
      name: "virt-walkerdTests",
      dependencies: [
        "DaemonSupport",
        "fault-checker",
        "node-checker",
        "virt-walkerd",
        .product(name: "Subprocess", package: "swift-subprocess"),
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      path: "Tests/Device/virt-walkerdTests",
      swiftSettings: strict
    ),
    .testTarget(
      name: "VirtualMachineTests",
      dependencies: [
        "DaemonSupport",
        "fault-checker",
        "virt-walkerd",
        .product(name: "Subprocess", package: "swift-subprocess"),
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      path: "Tests/System/VirtualMachineTests",
      swiftSettings: strict
    ),
    .testTarget(
      name: "OutsidePackageTests",
      dependencies: [
        .product(name: "Subprocess", package: "swift-subprocess"),
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      path: "Tests/System/OutsidePackageTests",
      swiftSettings: strict
    ),
  ]
)
