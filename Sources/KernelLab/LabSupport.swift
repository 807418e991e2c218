import CLinux
import CharacterDeviceServer
import Glibc
import Hashing
import SystemPackage
import UserCode

/// The files of this project that a lab is made of: the programs of host and guest, the configuration, the own hook and module.
struct LabSupport {
  let directory: FilePath
  /// The files of the directory itself, by their names.
  let files: [String: [UInt8]]

  init() throws(LabFailure) {
    do throws(CodeFailure) {
      directory = try SupportFiles.Place.find().directory.appending("lab")
    } catch {
      throw LabFailure(error.description)
    }
    var files: [String: [UInt8]] = [:]
    for name in LabFiles.names(in: directory) {
      files[name] = LabFiles.read(directory.appending(name))
    }
    self.files = files
  }

  func file(_ name: String) throws(LabFailure) -> [UInt8] {
    guard let file = files[name] else {
      throw LabFailure(
        "\(directory.appending(name)) is missing: install the package virt-walker again, or take a complete checkout"
      )
    }
    return file
  }

  func text(_ name: String) throws(LabFailure) -> String {
    String(decoding: try file(name), as: UTF8.self)
  }

  /// The hash of the C files of programs and of the observer.
  var programsHash: String {
    var hash = InputHash()
    for (name, bytes) in files.sorted(by: { $0.key < $1.key })
    where name.hasSuffix(".c") || name.hasSuffix(".h") || name == "Kbuild" {
      hash.add(name)
      hash.add(bytes)
    }
    return hash.name
  }

  var ownHook: FilePath { directory.appending("hook/virt_walker.c") }
  static let ownHookFunction = "virt_walker_mmio"
  var ownModule: FilePath { directory.appending("module/virt_walker.c") }
  var sourceScript: FilePath { directory.appending("linux-source") }
  /// The script that installs packages: beside the other files of an installed package, or in the checkout.
  var installScript: FilePath {
    let installed = directory.appending("lib/install-packages")
    return LabFiles.exists(installed)
      ? installed : directory.pushing("../../scripts/lib/install-packages").lexicallyNormalized()
  }
}

/// The programs that a build needs, and the Debian packages that have them.
struct LabRequirements {
  private static let programs: [(program: String, package: String)] = [
    ("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"),
    ("aarch64-linux-gnu-ld", "binutils-aarch64-linux-gnu"),
    ("gcc", "gcc"), ("make", "make"), ("bc", "bc"), ("bison", "bison"), ("flex", "flex"),
    ("patch", "patch"), ("tar", "tar"), ("xz", "xz-utils"), ("perl", "perl"),
  ]
  /// Headers that have no program.
  private static let headers: [(path: String, package: String)] = [
    ("/usr/aarch64-linux-gnu/include/stdio.h", "libc6-dev-arm64-cross"),
    ("/usr/include/stdio.h", "libc6-dev"),
  ]

  /// The packages that are missing.
  static var missing: [String] {
    var missing = programs.filter { Toolchain.find($0.program) == nil }.map(\.package)
    #if arch(arm64)
      let headers = headers.dropFirst()
    #endif
    missing += headers.filter { access($0.path, R_OK) != 0 }.map(\.package)
    return missing
  }
}
