// swift-tools-version: 6.2
// A package that serves a device with CharacterDeviceServer. Copy the package, and change the path below to the path of your checkout.
import PackageDescription

let package = Package(
  name: "rot13",
  dependencies: [
    .package(name: "virt-walker", path: "../.."),
    .package(url: "https://github.com/apple/swift-system", from: "1.8.1"),
  ],
  targets: [
    .executableTarget(
      name: "rot13",
      dependencies: [
        .product(name: "CharacterDeviceServer", package: "virt-walker"),
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      swiftSettings: [.swiftLanguageMode(.v6)]
    )
  ]
)
