import DaemonSupport
import Foundation
import Subprocess
import Testing

/// Tests of the scripts that build, download and install, and of their effects on the system.
@Suite(.timeLimit(.minutes(5))) struct ScriptTests {
  private let scripts = "\(repository)/scripts"

  /// The daemon of the tests needs the shared libraries of Swift, so scripts refuse to package it or to copy it into a
  /// virtual machine.
  @Test func programWithoutTheSwiftRuntimeIsRefused() async throws {
    let program = daemonProgram
    for command in [
      "\(scripts)/lib/require-static \(program)",
      "\(scripts)/vm/cuse-vm --daemon \(program) --command true",
    ] {
      let refused = try await shell(command)
      #expect(refused.status == .exited(1))
      #expect(refused.errors.contains("\(program) needs the Swift runtime's shared libraries"))
      #expect(refused.errors.contains("build it with scripts/build-static"))
    }
    let accepted = try await shell("\(scripts)/lib/require-static /bin/sh")
    #expect(accepted.succeeded, "\(accepted.errors)")
  }

  /// Each kind of release build has a folder of its own, because a plain `swift build -c release` makes none of the
  /// programs that are packaged.
  @Test func eachKindOfReleaseBuildHasAFolder() async throws {
    let builds = try await shell(
      // sed joins lines that end in a backslash.
      "cd \(repository) && for file in $(grep -rlI --exclude-dir='.build*' 'swift build' scripts oracle Benchmarks debian Containerfile); do sed -e :a -e '/\\\\$/N; s/\\\\\\n//; ta' $file | sed 's/#.*//' | grep 'swift build' | grep -e '-c release' -e '--configuration release' -e '--static-swift-stdlib'; done"
    )
    let lines = builds.output.split(separator: "\n")
    #expect(lines.count >= 4)
    for line in lines { #expect(line.contains("--scratch-path"), "\(line)") }
    let named = try await shell(
      "cd \(repository) && grep -rnI --exclude-dir='.*' --exclude-dir=Corpus --exclude-dir=Tests '[.]build/release' ."
    )
    #expect(named.output == "", "this folder belongs to plain swift build")
  }

  /// The scripts refuse to install a package that would remove another package. The test uses the real apt with a
  /// system of its own.
  @Test func noPackageIsRemoved() async throws {
    let install = try await shell(
      """
      set -eu
      root=$(mktemp -d)
      trap 'rm -rf "$root"' EXIT
      mkdir -p "$root/repository" "$root/lists/partial" "$root/cache/archives/partial" "$root/dpkg"
      cat >"$root/repository/Packages" <<END
      Package: newcomer
      Version: 1
      Architecture: all
      Conflicts: resident
      Filename: ./newcomer.deb
      Size: 1
      SHA256: 0000000000000000000000000000000000000000000000000000000000000000

      Package: harmless
      Version: 1
      Architecture: all
      Filename: ./harmless.deb
      Size: 1
      SHA256: 0000000000000000000000000000000000000000000000000000000000000000
      END
      cat >"$root/dpkg/status" <<END
      Package: resident
      Status: install ok installed
      Version: 1
      Architecture: all
      Maintainer: nobody
      Description: what the user has
      END
      echo "deb [trusted=yes] file:$root/repository ./" >"$root/sources.list"
      cat >"$root/apt.conf" <<END
      Dir::Etc::SourceList "$root/sources.list";
      Dir::Etc::SourceParts "/dev/null";
      Dir::State "$root";
      Dir::State::Status "$root/dpkg/status";
      Dir::Cache "$root/cache";
      APT::Sandbox::User "root";
      APT::Get::Simulate "true";
      END
      export APT_CONFIG="$root/apt.conf" DPKG_ADMINDIR="$root/dpkg"
      \(scripts)/lib/install-packages harmless && echo harmless installed
      \(scripts)/lib/install-packages newcomer || echo newcomer refused
      """)
    #expect(install.output.contains("Inst harmless"), "\(install.errors)")
    #expect(install.output.contains("harmless installed\n"))
    #expect(install.output.contains("newcomer refused\n"), "\(install.output)")
    #expect(!install.output.contains("Remv resident"))
    #expect(install.errors.contains("No script removes a package"))
  }

  /// Runs scripts/lib/install-packages with an apt-get and a dpkg of the test. The script begins after the definitions of `directory`, with
  /// all of these programs, and of `install`.
  private func withFakeApt(aptGet: String, dpkg: String, _ script: String) async throws -> Outcome {
    try await shell(
      """
      set -eu
      directory=$(mktemp -d)
      trap 'rm -rf "$directory"' EXIT
      mkdir -p "$directory/bin" "$directory/updates"
      cat >"$directory/bin/apt-get" <<'END'
      #!/bin/sh
      \(aptGet)
      END
      cat >"$directory/bin/dpkg" <<'END'
      #!/bin/sh
      \(dpkg)
      END
      printf '#!/bin/sh\nexit 1\n' >"$directory/bin/dpkg-query"
      printf '#!/bin/sh\necho 0\n' >"$directory/bin/id"
      printf '#!/bin/sh\nshift && exec "$@"\n' >"$directory/bin/flock"
      chmod 755 "$directory"/bin/*
      export PATH="$directory/bin:$PATH" DPKG_ADMINDIR="$directory"
      install=\(scripts)/lib/install-packages
      \(script)
      """)
  }

  /// apt installs nothing if an earlier installation was interrupted. The script completes the earlier one.
  @Test func interruptedInstallationIsCompleted() async throws {
    let install = try await withFakeApt(
      aptGet: #"""
        case " $* " in *' install '*) ;; *) exit 0 ;; esac
        [ ! -e "$DPKG_ADMINDIR/updates/0001" ] || { echo "E: dpkg was interrupted, you must manually run 'dpkg --configure -a' to correct the problem."; exit 100; }
        echo "got ${*##*--no-install-recommends }"
        """#,
      dpkg: #"[ "$*" != '--configure -a' ] || rm "$DPKG_ADMINDIR/updates/0001""#,
      #": >"$directory/updates/0001"; $install one two"#)
    #expect(install.output.contains("completing it: dpkg --configure -a"), "\(install.errors)")
    #expect(install.output.hasSuffix("two\n"), "\(install.output)")
    #expect(install.succeeded)
  }

  /// A signal that ends the script, and the end of the reader of its output, do not interrupt an installation.
  @Test(arguments: ["INT", "TERM", "HUP", "KILL"])
  func installationIsNotInterrupted(signal: String) async throws {
    let install = try await withFakeApt(
      aptGet: #"""
        case " $* " in *' install '*) ;; *) exit 0 ;; esac
        : >"$DPKG_ADMINDIR/begun"
        while [ ! -e "$DPKG_ADMINDIR/go" ]; do [ -d "$DPKG_ADMINDIR" ] && sleep 0.05 || exit 1; done
        echo 'an output without a reader' && : >"$DPKG_ADMINDIR/ended"
        """#,
      dpkg: "exit 1",
      """
      mkfifo "$directory/output"
      cat "$directory/output" & reader=$!
      setsid sh -c 'echo $$ >"$1/group"; exec "$2" one' sh "$directory" $install >"$directory/output" 2>&1 &
      soon test -e "$directory/begun"
      kill "$reader"
      env kill -s \(signal) -- "-$(cat "$directory/group")"
      sleep 0.2
      : >"$directory/go"
      soon test -e "$directory/ended" && echo ended
      """)
    #expect(install.output.hasSuffix("ended\n"), "\(install.output) \(install.errors)")
  }

  /// The parts of a virtual machine are downloaded, not installed.
  @Test func partsOfVirtualMachinesAreNotInstalled() async throws {
    let named = try await shell(
      "cd \(repository) && grep -rlI -e busybox-static -e linux-image scripts oracle | xargs grep -L -e download-packages -e download-only"
    )
    #expect(named.output == "", "a script names a part of a virtual machine, and downloads nothing")
    let others = try await shell(
      "cd \(repository) && grep -rnIE --exclude-dir='.build*' '^[^#]*apt(-get)? [^|]*\\binstall\\b' scripts oracle Benchmarks Examples | grep -v -e 'Examples/grading/' -e 'scripts/lib/install-packages:' -e 'scripts/ci/check-package' -e download-only"
    )
    #expect(
      others.output == "", "a package is installed by another way than scripts/lib/install-packages"
    )
  }

  /// The mirrors come from apt's sources, in either format, and from the variables.
  @Test(arguments: [
    ("sources.list", "deb [arch=amd64] http://one.example/mirror/debian/ bookworm main"),
    (
      "sources.list.d/debian.sources",
      "Types: deb\nURIs: http://one.example/mirror/debian/\nSuites: bookworm bookworm-updates\nComponents: main"
    ),
  ])
  func mirrorIsThatOfTheSystem(file: String, archive: String) async throws {
    let security =
      file == "sources.list"
      ? "deb http://two.example/debian-security bookworm-security main"
      : "\nTypes: deb\nURIs: http://two.example/debian-security\nSuites: bookworm-security\nComponents: main"
    let mirrors = try await shell(
      """
      set -eu
      unset DEBIAN_MIRROR DEBIAN_SECURITY_MIRROR UBUNTU_MIRROR
      root=$(mktemp -d)
      trap 'rm -rf "$root"' EXIT
      mkdir -p "$root/sources.list.d" "$root/lists/partial" "$root/apt.conf.d"
      echo 'deb http://other.example/packages bookworm main' >"$root/sources.list"
      cat >>"$root/\(file)" <<END
      \(archive)
      \(security)
      END
      cat >"$root/apt.conf" <<END
      Dir::Etc "$root";
      Dir::State "$root";
      END
      export APT_CONFIG="$root/apt.conf"
      \(scripts)/lib/apt-mirror debian
      \(scripts)/lib/apt-mirror debian-security
      \(scripts)/lib/apt-mirror ubuntu || echo none
      UBUNTU_MIRROR=http://three.example/ubuntu/ \(scripts)/lib/apt-mirror ubuntu
      """)
    #expect(
      mirrors.output == """
        http://one.example/mirror/debian
        http://two.example/debian-security
        none
        http://three.example/ubuntu

        """, "\(mirrors.errors)")
    #expect(mirrors.errors.contains("set UBUNTU_MIRROR to the address of a mirror"))
  }

  @Test func noMirrorIsNamed() async throws {
    // The first line of debian/copyright is the address of its format.
    let names = try await shell(
      "cd \(repository) && grep -rnIE --exclude-dir='.*' --exclude-dir=Corpus --exclude=ScriptTests.swift 'https?://[a-z.]*(debian|ubuntu|pypi|python)[a-z]*\\.(org|com)' * | grep -v '^debian/copyright:1:Format: '"
    )
    #expect(names.output == "")
    let document = try String(contentsOfFile: "\(repository)/docs/installing.md", encoding: .utf8)
    for name in ["DEBIAN_MIRROR", "DEBIAN_SECURITY_MIRROR", "UBUNTU_MIRROR"] {
      #expect(document.contains("`\(name)`"))
    }
  }

  // MARK: - scripts/test

  /// A test target outside the folders of the layers would never run.
  @Test func everyTestTargetIsInALayer() throws {
    let package = try String(contentsOfFile: "\(repository)/Package.swift", encoding: .utf8)
    let targets = package.split(separator: ".testTarget(").dropFirst().map { target in
      target.firstMatch(of: /name: "([^"]*)"/)!.output.1
    }
    let folders = try ["Units", "Device", "System"].flatMap { layer in
      try FileManager.default.contentsOfDirectory(atPath: "\(repository)/Tests/\(layer)").map {
        "Tests/\(layer)/\($0)"
      }
    }
    #expect(targets.count >= 11)
    #expect(targets.count == folders.count)
    for target in targets {
      #expect(folders.contains { $0.hasSuffix("/\(target)") }, "\(target) is in no layer")
      #expect(target.hasSuffix("Tests"))
    }
    for folder in folders { #expect(package.contains("path: \"\(folder)\""), "\(folder)") }
  }

  /// Runs scripts/test in a copy that all users may read, with an apt-get that has no network.
  private func runTestScript(_ command: String) async throws -> Outcome {
    try await shell(
      """
      directory=$(mktemp -d); trap 'rm -r $directory' EXIT
      mkdir $directory/bin; cp -r \(scripts) $directory; chmod -R a+rX $directory
      printf '#!/bin/sh\n' >$directory/bin/apt-get; chmod 755 $directory/bin/apt-get
      export PATH=$directory/bin:$PATH test=$directory/scripts/test
      \(command)
      """)
  }

  @Test func layersWithoutRoot() async throws {
    let list = try await runTestScript(
      "setpriv --reuid=65534 --regid=65534 --clear-groups $test --list </dev/null")
    #expect(list.succeeded, "\(list.errors)")
    #expect(list.output.contains("root: false"))
    #expect(
      list.output.contains("\nlayers that can run here: format build units code exec\n"),
      "\(list.output)")
    for layer in ["device", "machines"] {
      #expect(
        list.output.contains(
          "\n  \(layer) cannot run here: neither root nor sudo: run it as root\n"))
    }
  }

  @Test func layersWithoutFUSE() async throws {
    let list = try await runTestScript(
      "unshare -m sh -c 'mount --bind /etc/hostname /dev/fuse && $test --list'")
    #expect(list.succeeded, "\(list.errors)")
    #expect(
      list.output.contains("\nlayers that can run here: format build units code exec machines "),
      "\(list.output)")
    #expect(
      list.output.contains("\n  device cannot run here: /dev/fuse is missing: modprobe fuse"),
      "\(list.output)")
  }

  /// On a machine without FUSE and CUSE, scripts/run makes no node, and prints lines that work.
  @Test func runWithoutFUSE() async throws {
    let run = try await runTestScript(
      """
      cd $directory; mkdir -p .build-static/release Kernel
      ln -s $virt_walkerd .build-static/release/virt-walkerd
      for program in scripts/build-static Kernel/build-runtime; do printf '#!/bin/sh\n' >$program; chmod 755 $program; done
      cat >hidden <<'END'
      mount --bind /etc/hostname /dev/fuse && [ ! -c /dev/cuse ] && scripts/run
      END
      unshare -m sh hidden >output 2>&1; echo $?; cat output
      sed -n "s/^  \\(.* exec -- sh .*\\)/\\1/p" output | sh
      """)
    #expect(
      run.output.contains("/dev/fuse and /dev/cuse are missing"), "\(run.output)\(run.errors)")
    #expect(run.output.hasPrefix("0\n"), "\(run.output)")
    #expect(!run.output.contains("is ready"), "a daemon was started: \(run.output)")
    #expect(run.output.hasSuffix("\nA"), "\(run.output)\(run.errors)")
  }

  @Test(arguments: ["devices", "--none", "--filter"])
  func wrongUsageOfTheTestScript(argument: String) async throws {
    let test = try await runTestScript("$test \(argument)")
    #expect(test.status == .exited(64))
    #expect(test.errors.hasPrefix("usage: scripts/test "), "\(test.errors)")
  }
}
