import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.lang.management.ManagementFactory;
import java.lang.management.ThreadMXBean;
import java.nio.charset.StandardCharsets;
import java.text.ParseException;
import java.util.ArrayList;
import java.util.Date;
import java.util.List;
import java.util.TimeZone;
import org.quartz.CronExpression;

/**
 * Answers lines of standard input with Quartz, in the same order.
 *
 * "N <tab> expression <tab> zone <tab> from_ms <tab> n" -> the next instants, joined by commas; "ERR message" when
 * Quartz refuses the expression; "TIMEOUT" when it ran into one of its endless loops.
 * "Z <tab> zone <tab> from_ms <tab> to_ms" -> the zone's changes of offset as Java knows them, "ms:offset_ms" each.
 */
public class QuartzNext {
  private static final long DAY = 86_400_000L;
  private static final long CPU_LIMIT_NS = 500_000_000L;

  private final List<String> lines = new ArrayList<>();
  private String[] answers;
  private volatile int current;

  public static void main(String[] args) throws Exception {
    new QuartzNext().run();
  }

  private void run() throws Exception {
    BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    for (String line = in.readLine(); line != null; line = in.readLine()) {
      lines.add(line);
    }
    answers = new String[lines.size()];
    for (current = 0; current < lines.size();) {
      work();
    }
    PrintStream out = new PrintStream(System.out, false, "UTF-8");
    for (String answer : answers) {
      out.println(answer);
    }
    out.flush();
  }

  /** Runs from the current line on until the end or until one line has eaten its processor time. */
  @SuppressWarnings({"deprecation", "removal"})
  private void work() throws InterruptedException {
    Thread worker = new Thread(() -> {
      for (int i = current; i < lines.size(); i = current) {
        String answer = answer(lines.get(i));
        synchronized (this) {
          answers[i] = answer;
          current = i + 1;
        }
      }
    });
    worker.start();
    ThreadMXBean cpu = ManagementFactory.getThreadMXBean();
    int seen = -1;
    long since = 0;
    while (worker.isAlive()) {
      worker.join(20);
      long used = cpu.getThreadCpuTime(worker.getId());
      if (current != seen) {
        seen = current;
        since = used;
      } else if (worker.isAlive() && used - since > CPU_LIMIT_NS) {
        synchronized (this) {
          if (current != seen) {
            continue;
          }
          worker.stop(); // the endless loop has no other way out
          answers[seen] = "TIMEOUT";
          current = seen + 1;
        }
        worker.join();
      }
    }
  }

  private String answer(String line) {
    String[] part = line.split("\t", -1);
    if (part[0].equals("Z")) {
      return changes(TimeZone.getTimeZone(part[1]), Long.parseLong(part[2]), Long.parseLong(part[3]));
    }
    try {
      CronExpression cron = new CronExpression(part[1]);
      cron.setTimeZone(TimeZone.getTimeZone(part[2]));
      Date at = new Date(Long.parseLong(part[3]));
      StringBuilder out = new StringBuilder();
      for (int n = Integer.parseInt(part[4]); n > 0; n--) {
        at = cron.getNextValidTimeAfter(at);
        if (at == null) {
          break;
        }
        out.append(out.length() > 0 ? "," : "").append(at.getTime());
      }
      return out.toString();
    } catch (ParseException | RuntimeException e) {
      return "ERR " + String.valueOf(e.getMessage()).replace('\n', ' ');
    }
  }

  private static String changes(TimeZone zone, long from, long to) {
    StringBuilder out = new StringBuilder().append(from).append(':').append(zone.getOffset(from));
    for (long t = from; t < to; t += DAY) {
      long low = t;
      long high = t + DAY;
      if (zone.getOffset(low) == zone.getOffset(high)) {
        continue;
      }
      while (high - low > 1) {
        long middle = (low + high) / 2;
        if (zone.getOffset(middle) == zone.getOffset(t)) {
          low = middle;
        } else {
          high = middle;
        }
      }
      out.append(',').append(high).append(':').append(zone.getOffset(high));
    }
    return out.toString();
  }
}
