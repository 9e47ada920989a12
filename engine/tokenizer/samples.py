"""Short texts of several kinds, written for this project, to measure how well a tokenizer compresses each kind.

They are always the same, so figures from different runs can be compared.
"""

from __future__ import annotations

NEWS = """\
The city council voted seven to four on Tuesday evening to reopen the old harbor line, ending almost three years of
argument over who should pay for it. Trains will run every twelve minutes between the ferry terminal and the university
from the second week of September, the transport office said, with a single fare of $2.40 that also covers buses.

"People had stopped believing us," said Maria Okafor, who chairs the committee. "I understand that. We've missed two
deadlines already, and we won't get a third chance." Opponents had warned that repairs to the eastern bridge, which was
closed after the storms of 2019, might cost as much as $61 million, roughly twice the first estimate.

Shopkeepers along Canal Street welcomed the decision. Sales there fell by about 18 percent in the first year without
trains, according to the chamber of commerce, and at least thirty businesses moved away. Weather permitting, the first
test run is planned for the night of July 14.
"""

CODE = """\
fn median(values: &mut [f64]) -> Option<f64> {
    if values.is_empty() {
        return None;
    }
    values.sort_by(|a, b| a.total_cmp(b));
    let mid = values.len() / 2;
    Some(if values.len() % 2 == 1 { values[mid] } else { (values[mid - 1] + values[mid]) / 2.0 })
}

SELECT run_id, MAX(step) AS last_step, MIN(loss) AS best_loss
FROM metrics
WHERE created_at >= '2025-01-01' AND loss IS NOT NULL
GROUP BY run_id
HAVING COUNT(*) > 100
ORDER BY best_loss ASC
LIMIT 20;

export async function loadRuns(url: string): Promise<Run[]> {
  const response = await fetch(`${url}/runs?limit=50`, { headers: { accept: "application/json" } });
  if (!response.ok) throw new Error(`HTTP ${response.status}`);
  return (await response.json()).runs.filter((run) => run.state !== "deleted");
}

#include <stdio.h>
int main(void) {
    for (int i = 1; i <= 100; ++i) {
        printf(i % 15 == 0 ? "FizzBuzz\\n" : i % 5 == 0 ? "Buzz\\n" : i % 3 == 0 ? "Fizz\\n" : "%d\\n", i);
    }
    return 0;
}
"""

MATHS = r"""\begin{theorem}[Two squares]
An odd prime $p$ is a sum of two squares, $p = a^2 + b^2$ with $a, b \in \mathbb{Z}$,
if and only if $p \equiv 1 \pmod 4$.
\end{theorem}

\begin{proof}
Squares are $0$ or $1$ modulo $4$, so $a^2 + b^2 \not\equiv 3 \pmod 4$. Conversely let $p = 4k + 1$. By Wilson's theorem
\[
  -1 \equiv (p-1)! = \prod_{j=1}^{2k} j \,(p - j) \equiv (-1)^{2k} \bigl((2k)!\bigr)^2 \pmod p ,
\]
so $x = (2k)!$ satisfies $x^2 \equiv -1$. Consider all $u - xv$ with $0 \le u, v < \sqrt{p}$. There are more than $p$
such pairs, hence two of them agree modulo $p$; their difference $(a, b) \neq (0, 0)$ has
$a^2 + b^2 \equiv 0 \pmod p$ and $0 < a^2 + b^2 < 2p$, which leaves only $a^2 + b^2 = p$. \qedhere
\end{proof}

Example: $13 = 4 + 9$, $97 = 16 + 81$, $1009 = 15^2 + 28^2 = 225 + 784$. Also $\int_0^1 x^n \, dx = \frac{1}{n+1}$ and
$\sum_{n \ge 1} 1/n^2 = \pi^2/6 \approx 1.644934$, so that $48 \times 27 = 1296 = 36^2$ and
$2^{10} - 1 = 1023 = 3 \cdot 11 \cdot 31$.
"""

SCRIPTS = """\
Сегодня утром в городе шёл сильный дождь, и мы решили остаться дома и читать книги.
Το καλοκαίρι ο ήλιος ανατέλλει νωρίς και τα παιδιά παίζουν στην παραλία ως το βράδυ.
今日は朝から雨が降っているので、家で本を読みながらお茶を飲むことにしました。
我们昨天去了图书馆，借了三本关于天文学的书，今天晚上打算一起看星星。
오늘 아침에는 비가 많이 와서 우리는 집에서 책을 읽고 따뜻한 차를 마셨습니다.
في الصباح الباكر خرج الأولاد إلى الحقل وجمعوا التفاح قبل أن تشرق الشمس.
आज सुबह बहुत बारिश हुई, इसलिए हम घर पर रहे और किताबें पढ़ते रहे।
בבוקר ירד גשם חזק ולכן נשארנו בבית וקראנו ספרים ליד החלון.
เช้านี้ฝนตกหนัก เราจึงอยู่บ้านอ่านหนังสือและดื่มชาร้อน
Le garçon naïf a mangé une crème brûlée à Noël; größere Bäume, señor, łódź, çok güzel, đường phố.
"""

DIALOGUE = """\
"You're late," she said, without looking up. "I know. I'm sorry - the bus didn't come." He put the box on the table.
"What's in it?" "Guess!" "I won't guess. I'll open it." "Don't! Not yet. It'll run away." She laughed. "It's a cat?"
"It isn't a cat." "Then what?" They both listened. Something very small was scratching, and then it wasn't.
"Well," he said at last, "it was a mouse when I left home. I'd have sworn it was a mouse." "And now?" "I'm not sure."
"""

SAMPLES: dict[str, str] = {
    "news": NEWS,
    "dialogue": DIALOGUE,
    "code": CODE,
    "maths": MATHS,
    "other_scripts": SCRIPTS,
}
